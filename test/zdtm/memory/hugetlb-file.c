/* SPDX-License-Identifier: Apache-2.0 */
/* Files of hugetlbfs: mapped shared, private, and deleted. */
#include <fcntl.h>
#include <sys/mman.h>

#include "zdtm.h"

#define HUGE (2UL << 20)

static char *map(const char *name, int flags, int *ret_fd)
{
	int fd = MUST(open(name, O_RDWR | O_CREAT, 0600));
	char *p;

	MUST(ftruncate(fd, 3 * HUGE));
	p = mmap(NULL, 3 * HUGE, PROT_READ | PROT_WRITE, flags, fd, 0);
	if (p == MAP_FAILED)
		test_skip("no huge pages: %s", strerror(errno));
	if (ret_fd)
		*ret_fd = fd;
	else
		MUST(close(fd));
	return p;
}

int main(int argc, char **argv)
{
	char *shared, *private, *deleted, dir[256];
	int fd, n = 0;

	test_init(argc, argv);
	snprintf(dir, sizeof(dir), "%s", test_path("../huge/file"));
	shared = map(dir, MAP_SHARED, &fd);
	private = map(dir, MAP_PRIVATE, NULL);
	deleted = map(test_path("../huge/deleted"), MAP_SHARED, NULL);
	MUST(unlink(test_path("../huge/deleted")));
	test_fill(shared, 2 * HUGE, 1);
	test_fill(private + HUGE, HUGE, 2);
	test_fill(deleted, 2 * HUGE, 3);
	test_ready();
	while (test_wait_ms(2))
		deleted[2 * HUGE] = (char)++n;
	test_check_fill(shared, 2 * HUGE, 1, "shared");
	test_check_fill(private, HUGE, 1, "private, page of the file");
	test_check_fill(private + HUGE, HUGE, 2, "private");
	test_check_fill(deleted, 2 * HUGE, 3, "deleted");
	CHECK_EQ(deleted[2 * HUGE], (char)n);
	shared[7] = 8;
	CHECK_EQ(private[7], 8);
	MUST(ftruncate(fd, 0));
	MUST(munmap(shared, 3 * HUGE));
	MUST(munmap(private, 3 * HUGE));
	MUST(munmap(deleted, 3 * HUGE));
	MUST(unlink(dir));
	test_pass();
}
