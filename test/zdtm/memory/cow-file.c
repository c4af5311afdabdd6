/* SPDX-License-Identifier: Apache-2.0 */
/* Modified pages of private file mappings, and huge pages, shared by parent and children. */
#include <fcntl.h>
#include <sys/mman.h>

#include "pss.h"

#define CHILDREN 8
#define PAGES    2048
#define HUGE     (2L << 20)
#define N_HUGE   8

static char *map_file(void)
{
	int fd = MUST(open(test_path("file"), O_RDWR | O_CREAT, 0600));
	char *p;

	MUST(ftruncate(fd, PAGES * 4096L));
	for (int i = 0; i < PAGES; i++)
		CHECK(pwrite(fd, "file", 5, i * 4096L) == 5, "write");
	p = mmap(NULL, PAGES * 4096L, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	CHECK(p != MAP_FAILED, "map");
	close(fd);
	for (int i = 0; i < PAGES; i++)
		if (i % 4)
			test_fill(p + i * 4096L, 4096, i);
	return p;
}

static void check(const char *file, const char *huge, int who)
{
	for (int i = 0; i < PAGES; i++)
		if (i % 4 == 0)
			CHECK(!strcmp(file + i * 4096L, "file"), "an unmodified page");
		else
			test_check_fill(file + i * 4096L, 4096, i == 4 * who + 1 ? 12345 + who : i,
					"private page of a file");
	for (int i = 0; i < N_HUGE; i++)
		test_check_fill(huge + i * HUGE, HUGE, i, "huge page");
}

int main(int argc, char **argv)
{
	char *file, *huge;
	pid_t pids[CHILDREN];
	volatile int *flags;
	uint64_t before, thp;

	test_init(argc, argv);
	flags = test_shared_flags(1 + CHILDREN);
	file = map_file();
	huge = test_map((N_HUGE + 1) * HUGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS);
	huge += HUGE - (uintptr_t)huge % HUGE;
	MUST(madvise(huge, N_HUGE * HUGE, MADV_HUGEPAGE));
	for (int i = 0; i < N_HUGE; i++)
		test_fill(huge + i * HUGE, HUGE, i);
	for (int i = 0; i < CHILDREN; i++) {
		pids[i] = test_fork();
		if (pids[i])
			continue;
		test_fill(file + (4 * i + 1) * 4096L, 4096, 12345u + i);
		flags[1 + i] = 1;
		while (!flags[0])
			test_sleep_ms(5);
		check(file, huge, i);
		for (int j = 0; j < N_HUGE; j++)
			huge[j * HUGE + i] ^= 1;
		_exit(0);
	}
	for (int i = 0; i < CHILDREN; i++)
		while (!flags[1 + i])
			test_sleep_ms(1);
	before = pss_of(pids, CHILDREN);
	thp = rollup(pids[0], "AnonHugePages:");
	test_ready();
	test_wait();
	check_pss(before, pss_of(pids, CHILDREN));
	errno = 0;
	CHECK(rollup(pids[0], "AnonHugePages:") == thp, "huge pages of a child: %llu KiB, it was %llu KiB",
	      (unsigned long long)rollup(pids[0], "AnonHugePages:") / 1024, (unsigned long long)thp / 1024);
	flags[0] = 1;
	for (int i = 0; i < CHILDREN; i++)
		test_reap(pids[i], 0);
	check(file, huge, -1);
	test_pass();
}
