/* SPDX-License-Identifier: Apache-2.0 */
/* Shared file maps in two processes: stores are seen by the other process and by the file, before and after.
 */
#include <fcntl.h>
#include <sys/mman.h>

#include "zdtm.h"

#define SIZE (32 * 4096)

int main(int argc, char **argv)
{
	volatile int *turn;
	char *p, *ro, buf[4096];
	pid_t child;
	int fd;

	test_init(argc, argv);
	turn = test_shared_flags(1);
	fd = MUST(open(test_path("file"), O_RDWR | O_CREAT, 0644));
	MUST(ftruncate(fd, SIZE));
	p = MUST(mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
	MUST(close(fd));
	fd = MUST(open(test_path("file"), O_RDONLY));
	ro = MUST(mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 4096));
	MUST(close(fd));
	test_fill(p, SIZE, 1);
	child = test_fork();
	if (!child) {
		test_wait();
		while (!turn[0])
			test_sleep_ms(1);
		test_check_fill(p, SIZE, 2, "what the parent stored");
		_exit(3);
	}
	test_ready();
	test_wait();
	test_check_fill(p, SIZE, 1, "shared file map");
	CHECK(!memcmp(ro, p + 4096, 4096), "the read-only map shows something else");
	test_fill(p, SIZE, 2);
	turn[0] = 1;
	CHECK(!memcmp(ro, p + 4096, 4096), "the read-only map does not follow");
	fd = MUST(open(test_path("file"), O_RDONLY));
	CHECK_EQ(pread(fd, buf, sizeof(buf), 4096), 4096);
	CHECK(!memcmp(buf, p + 4096, 4096), "the file does not have what was stored");
	test_reap(child, 3);
	test_pass();
}
