/* SPDX-License-Identifier: Apache-2.0 */
/* Configuration files of ferry. First byte: for which verb. */
#include <stdlib.h>

#include "base/util.h"
#include "cli/table.h"
#include "cli/verbs.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct cli_options o;
	struct error e = ERROR_INIT;
	size_t n = 0;

	if (!size)
		return 0;
	while (verbs[n].name)
		n++;
	char *text = xmalloc(size); /* exactly as long as it is: one byte too far is seen */

	for (size_t i = 1; i < size; i++)
		text[i - 1] = (char)data[i];
	text[size - 1] = 0;
	options_init(&cli_table, &o);
	options_parse_text(&cli_table, verbs[data[0] % n].bit, "FILE", text, &o, &e);
	options_deinit(&cli_table, &o);
	free(text);
	return 0;
}
