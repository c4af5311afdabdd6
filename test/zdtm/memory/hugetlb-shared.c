/* SPDX-License-Identifier: Apache-2.0 */
/* Huge pages of the pool that are shared: MAP_HUGETLB with a child, a memfd mapped shared and private, with
 * holes. */
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "zdtm.h"

#define HUGE  (2UL << 20)
#define PAGES 4

static char *map(int flags, int fd)
{
	char *p = mmap(NULL, PAGES * HUGE, PROT_READ | PROT_WRITE, flags, fd, 0);

	if (p == MAP_FAILED)
		test_skip("no huge pages: %s", strerror(errno));
	return p;
}

int main(int argc, char **argv)
{
	volatile int *flag;
	char *anon, *shared, *private;
	struct stat before, after;
	int fd, n = 0;
	pid_t pid;

	test_init(argc, argv);
	flag = test_shared_flags(2);
	fd = memfd_create("huge", MFD_HUGETLB | (21 << 26) | MFD_ALLOW_SEALING);
	if (fd < 0)
		test_skip("no memfd of huge pages: %s", strerror(errno));
	MUST(ftruncate(fd, PAGES * HUGE));
	anon = map(MAP_SHARED | MAP_ANONYMOUS | MAP_HUGETLB | (21 << 26), -1);
	shared = map(MAP_SHARED, fd);
	private = map(MAP_PRIVATE, fd);
	test_fill(anon, HUGE, 1);
	test_fill(shared, 3 * HUGE, 2);
	test_fill(private + HUGE, HUGE, 3);     /* over a page of the file */
	test_fill(private + 3 * HUGE, HUGE, 4); /* over a hole */
	MUST(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 2 * HUGE, HUGE));
	MUST(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK));
	MUST(fstat(fd, &before));
	pid = test_fork();
	if (!pid) {
		while (test_waiting()) {
			anon[HUGE + 7]++;
			flag[0]++;
			test_sleep_ms(1);
		}
		flag[1] = 1;
		while (flag[1] == 1)
			test_sleep_ms(1);
		CHECK_EQ(anon[3 * HUGE], 55);
		exit(0);
	}
	while (!flag[0])
		test_sleep_ms(1);
	test_ready();
	while (test_wait_ms(2))
		shared[5] = (char)++n;
	while (!flag[1])
		test_sleep_ms(1);
	MUST(fstat(fd, &after));
	CHECK_EQ(after.st_blocks, before.st_blocks);
	CHECK_EQ(after.st_size, before.st_size);
	CHECK_EQ(fcntl(fd, F_GET_SEALS), F_SEAL_SHRINK);
	CHECK_EQ(shared[5], (char)n);
	test_fill(shared, 8, 2);
	test_check_fill(shared, 2 * HUGE, 2, "shared");
	test_check_fill(private + HUGE, HUGE, 3, "private");
	test_check_fill(private + 3 * HUGE, HUGE, 4, "private over a hole");
	for (size_t i = 0; i < HUGE; i++)
		CHECK(!shared[2 * HUGE + i] && !shared[3 * HUGE + i], "a hole is not zero at %zu", i);
	CHECK_EQ(anon[HUGE + 7], (char)flag[0]);
	test_check_fill(anon, HUGE, 1, "shared anonymous");
	/* Still the same memory for all of them. */
	anon[3 * HUGE] = 55;
	shared[0] = 99;
	CHECK_EQ(private[0], 99);
	flag[1] = 2;
	test_reap(pid, 0);
	test_pass();
}
