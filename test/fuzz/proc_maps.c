/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>

#include "base/util.h"
#include "procfs/procfs.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text = xmalloc(size + 1); /* exactly as long as it is: one byte too far is seen */
	struct proc_maps m;
	struct error e = ERROR_INIT;

	for (size_t i = 0; i < size; i++)
		text[i] = (char)data[i];
	text[size] = 0;
	if (proc_maps_parse(text, &m, &e) == 0) {
		for (size_t i = 0; i < m.n; i++) /* what callers rely on */
			if (m.v[i].start >= m.v[i].end || (i && m.v[i].start < m.v[i - 1].end) ||
			    !m.v[i].path)
				abort();
		proc_maps_deinit(&m);
	}
	free(text);
	return 0;
}
