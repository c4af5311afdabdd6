/* SPDX-License-Identifier: Apache-2.0 */
/* The main stack and a MAP_GROWSDOWN map still grow, and keep what is on them. */
#include <sys/mman.h>

#include "zdtm.h"

static int deep(int levels, int seed)
{
	char frame[8192];

	test_fill(frame, sizeof(frame), levels + seed);
	if (levels && deep(levels - 1, seed) != levels - 1)
		return -1;
	test_check_fill(frame, sizeof(frame), levels + seed, "a stack frame");
	return levels;
}

static int wait_in(int levels)
{
	char frame[8192];
	int rc = 0;

	test_fill(frame, sizeof(frame), levels);
	if (levels) {
		rc = wait_in(levels - 1);
	} else {
		test_ready();
		test_wait();
	}
	test_check_fill(frame, sizeof(frame), levels, "a frame of before");
	return rc;
}

int main(int argc, char **argv)
{
	volatile char *down;

	test_init(argc, argv);
	down = test_map(64 * 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS);
	MUST(munmap((char *)down, 64 * 4096));
	down = MUST(mmap((char *)down + 60 * 4096, 4 * 4096, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_GROWSDOWN | MAP_FIXED, -1, 0));
	down[0] = 1;
	CHECK_EQ(wait_in(20), 0);
	CHECK_EQ(deep(700, 5), 700); /* nearly 6 MiB */
	CHECK_EQ(down[0], 1);
	for (int i = 1; i < 4; i++)
		down[-i * 4096] = (char)i;
	CHECK_EQ(down[-3 * 4096], 3);
	test_pass();
}
