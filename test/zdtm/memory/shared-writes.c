/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Shared memory changed behind the page table while it is copied: through the descriptor, by punching holes,
 * by truncation, through a second mapping and by another process.
 */
#include <fcntl.h>
#include <sys/mman.h>

#include "zdtm.h"

#define PAGES 512
#define SIZE  (PAGES * 4096L)

/* In shared memory: both processes change pages, each its own half. */
static struct half {
	uint64_t seed[PAGES / 2], state, writes;
} * half;
static char *first, *second;
static int fd;

static void check(int h, int i)
{
	char *page = first + (i + h * (PAGES / 2)) * 4096L;

	if (half[h].seed[i])
		test_check_fill(page, 4096, half[h].seed[i], h ? "page of the child" : "page of the parent");
	else
		CHECK(!memcmp(page, (char[4096]){0}, 4096), "page %d of half %d is a hole, but holds data", i,
		      h);
}

static void step(int h)
{
	static char page[4096];
	int i = (int)(test_random(&half[h].state) % (PAGES / 2)), at = i + h * (PAGES / 2);

	check(h, i);
	half[h].seed[i] = ++half[h].writes * 2 + h;
	switch (test_random(&half[h].state) % 4) {
	case 0:
		test_fill(page, 4096, half[h].seed[i]);
		CHECK_EQ(pwrite(fd, page, 4096, at * 4096L), 4096);
		break;
	case 1:
		test_fill(second + at * 4096L, 4096, half[h].seed[i]);
		break;
	case 2:
		MUST(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, at * 4096L, 4096));
		half[h].seed[i] = 0;
		break;
	default:
		test_fill(first + at * 4096L, 4096, half[h].seed[i]);
		break;
	}
}

int main(int argc, char **argv)
{
	pid_t child;

	test_init(argc, argv);
	half = test_map(2 * sizeof(*half), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS);
	fd = MUST(memfd_create("shared", 0));
	MUST(ftruncate(fd, SIZE));
	first = MUST(mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
	second = MUST(mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
	half[0].state = 17;
	half[1].state = 18;
	for (int n = 0; n < 2000; n++)
		step(n % 2);
	child = test_fork();
	if (!child) {
		while (test_wait_ms(1))
			for (int n = 0; n < 10; n++)
				step(1);
		_exit(0);
	}
	test_ready();
	while (test_wait_ms(1))
		for (int n = 0; n < 10; n++)
			step(0);
	test_reap(child, 0);
	for (int h = 0; h < 2; h++)
		for (int i = 0; i < PAGES / 2; i++)
			check(h, i);
	CHECK(!memcmp(first, second, SIZE), "the two mappings differ");
	test_pass();
}
