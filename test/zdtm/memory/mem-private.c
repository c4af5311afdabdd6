/* SPDX-License-Identifier: Apache-2.0 */
/* Private anonymous memory: written, only read (the zero page), never touched, read-only. */
#include <sys/mman.h>

#include "zdtm.h"

#define SIZE (4 << 20)

int main(int argc, char **argv)
{
	char *full, *sparse, *zero, *untouched, *readonly;

	test_init(argc, argv);
	full = test_map(SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS);
	sparse = test_map(SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE);
	zero = test_map(SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS);
	untouched = test_map(SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS);
	readonly = test_map(SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS);
	test_fill(full, SIZE, 1);
	for (size_t i = 0; i < SIZE; i += 7 * 4096)
		test_fill(sparse + i, 4096, i);
	for (size_t i = 0; i < SIZE; i += 4096)
		*(volatile char *)&zero[i];
	test_fill(readonly, SIZE, 2);
	MUST(mprotect(readonly, SIZE, PROT_READ));
	test_ready();
	test_wait();
	test_check_fill(full, SIZE, 1, "full");
	test_check_fill(readonly, SIZE, 2, "readonly");
	for (size_t i = 0; i < SIZE; i += 4096) {
		if (i % (7 * 4096) == 0)
			test_check_fill(sparse + i, 4096, i, "sparse");
		else
			CHECK_EQ(sparse[i + 100], 0);
		CHECK_EQ(zero[i], 0);
		CHECK_EQ(untouched[i], 0);
	}
	test_fill(untouched, SIZE, 3);
	test_check_fill(untouched, SIZE, 3, "untouched");
	test_check_fill(full, SIZE, 1, "full, after another was written");
	MUST(mprotect(readonly, SIZE, PROT_READ | PROT_WRITE));
	test_fill(readonly, SIZE, 4);
	test_pass();
}
