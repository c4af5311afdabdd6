/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>

#include "base/util.h"
#include "procfs/procfs.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text = xmalloc(size + 1); /* exactly as long as it is: one byte too far is seen */
	uint64_t v;

	for (size_t i = 0; i < size; i++)
		text[i] = (char)data[i];
	text[size] = 0;
	const char *p = proc_field(text, "flags");

	if (p && (p < text || p > text + size))
		abort();
	proc_field_u64(text, "flags", 8, &v);
	proc_field_u64(text, "pos", 10, &v);
	proc_field_u64(text, "mask", 16, &v);
	free(text);
	return 0;
}
