/* SPDX-License-Identifier: Apache-2.0 */
/* The heap: content, and growing and shrinking it after the restore. */
#include "zdtm.h"

int main(int argc, char **argv)
{
	char *start, *end;

	test_init(argc, argv);
	start = MUST(sbrk(0));
	MUST(sbrk(1 << 20));
	test_fill(start, 1 << 20, 1);
	end = MUST(sbrk(0));
	test_ready();
	test_wait();
	CHECK(sbrk(0) == end, "brk moved");
	test_check_fill(start, 1 << 20, 1, "heap");
	CHECK(sbrk(1 << 20) == end, "brk grew elsewhere");
	test_fill(end, 1 << 20, 2);
	test_check_fill(end, 1 << 20, 2, "new heap");
	test_check_fill(start, 1 << 20, 1, "old heap");
	MUST(sbrk(-(2 << 20) + 4096));
	MUST(sbrk(1 << 20));
	for (int i = 4096; i < 1 << 20; i++)
		CHECK(!start[i], "the heap is not zero after shrinking and growing");
	test_pass();
}
