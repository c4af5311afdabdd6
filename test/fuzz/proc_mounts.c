/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>

#include "base/util.h"
#include "procfs/procfs.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text = xmalloc(size + 1); /* exactly as long as it is: one byte too far is seen */
	struct proc_mounts m;
	struct error e = ERROR_INIT;

	for (size_t i = 0; i < size; i++)
		text[i] = (char)data[i];
	text[size] = 0;
	if (proc_mounts_parse(text, &m, &e) == 0)
		proc_mounts_deinit(&m);
	free(text);
	return 0;
}
