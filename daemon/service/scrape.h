/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* One HTTP request for the metrics and its answer; what may come from anybody who can connect. */
#include <stdbool.h>
#include <stddef.h>

#define SCRAPE_MAX 4096 /* bytes of a request */

enum scrape_request {
	SCRAPE_MORE, /* not complete yet */
	SCRAPE_OK,
	SCRAPE_BAD,
	SCRAPE_METHOD,
	SCRAPE_PATH,
};

/* What @n bytes of a request are. */
enum scrape_request scrape_parse(const char *text, size_t n);
/* The answer with its head; malloc'ed. @body only with SCRAPE_OK. */
char *scrape_answer(enum scrape_request r, const char *body, size_t *ret_n);
