/* SPDX-License-Identifier: Apache-2.0 */
#include "service/scrape.h"

#include <string.h>

#include "base/util.h"

/* The request line ends with the first line feed, the request with an empty line. */
enum scrape_request scrape_parse(const char *text, size_t n)
{
	static const char method[] = "GET ", path[] = "/metrics";
	const char *line = memchr(text, '\n', n);
	bool complete = memmem(text, n, "\r\n\r\n", 4) || memmem(text, n, "\n\n", 2);

	if (memchr(text, 0, n))
		return SCRAPE_BAD;
	if (!complete)
		return n < SCRAPE_MAX ? SCRAPE_MORE : SCRAPE_BAD;
	size_t length = (size_t)(line - text), at = strlen(method);

	if (!memmem(text, length, " HTTP/1.", 8))
		return SCRAPE_BAD;
	if (strncmp(text, method, at) != 0)
		return SCRAPE_METHOD;
	if (strncmp(text + at, path, strlen(path)) != 0)
		return SCRAPE_PATH;
	at += strlen(path);
	return text[at] == ' ' || text[at] == '?' ? SCRAPE_OK : SCRAPE_PATH;
}

char *scrape_answer(enum scrape_request r, const char *body, size_t *ret_n)
{
	static const char *const status[] = {[SCRAPE_MORE] = "408 Request Timeout",
					     [SCRAPE_OK] = "200 OK",
					     [SCRAPE_BAD] = "400 Bad Request",
					     [SCRAPE_METHOD] = "405 Method Not Allowed",
					     [SCRAPE_PATH] = "404 Not Found"};
	cleanup_free char *plain = xasprintf("%s\n", status[r]);
	const char *text = r == SCRAPE_OK ? body : plain;
	char *all = xasprintf(
		"HTTP/1.0 %s\r\nContent-Type: text/plain%s; charset=utf-8\r\nContent-Length: %zu\r\n"
		"%sConnection: close\r\n\r\n%s",
		status[r], r == SCRAPE_OK ? "; version=0.0.4" : "", strlen(text),
		r == SCRAPE_METHOD ? "Allow: GET\r\n" : "", text);

	*ret_n = strlen(all);
	return all;
}
