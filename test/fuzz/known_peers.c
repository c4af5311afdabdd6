/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>

#include "base/util.h"
#include "migrate/keys.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text = xmalloc(size + 1); /* exactly as long as it is: one byte too far is seen */
	struct known_peer *p;
	size_t n;
	struct error e = ERROR_INIT;

	for (size_t i = 0; i < size; i++)
		text[i] = (char)data[i];
	text[size] = 0;
	if (known_peers_parse(text, "FILE", &p, &n, &e) == 0) {
		for (size_t i = 0; i < n; i++) /* what callers rely on */
			if (!p[i].name || !*p[i].name || p[i].grants & ~(unsigned)GRANT_ALL)
				abort();
		known_peers_free(p, n);
	}
	free(text);
	return 0;
}
