/* SPDX-License-Identifier: Apache-2.0 */
/* Transparent huge pages: whole ones, one with a hole, one written again while it is copied. */
#include <sys/mman.h>

#include "zdtm.h"

#define HUGE (2UL << 20)

int main(int argc, char **argv)
{
	char *p;
	uint64_t round = 0;

	test_init(argc, argv);
	p = test_map(9 * HUGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS);
	p += HUGE - (uintptr_t)p % HUGE;
	MUST(madvise(p, 8 * HUGE, MADV_HUGEPAGE));
	for (int i = 0; i < 7; i++)
		test_fill(p + i * HUGE, HUGE, i);
	MUST(madvise(p + HUGE + 16 * 4096, 8 * 4096, MADV_DONTNEED));
	test_fill(p + 2 * HUGE, HUGE, round);
	test_ready();
	while (test_wait_ms(2))
		test_fill(p + 2 * HUGE, HUGE, ++round);
	test_check_fill(p, HUGE, 0, "whole");
	for (int i = 3; i < 7; i++)
		test_check_fill(p + i * HUGE, HUGE, i, "whole");
	for (int i = 16 * 4096; i < 24 * 4096; i++)
		CHECK(!p[HUGE + i], "a dropped page is not zero");
	test_check_fill(p + 2 * HUGE, HUGE, round, "written again");
	for (unsigned long i = 0; i < HUGE; i++)
		CHECK(!p[7 * HUGE + i], "an untouched page is not zero");
	test_pass();
}
