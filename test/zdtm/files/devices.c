/* SPDX-License-Identifier: Apache-2.0 */
/* /dev/null and friends. */
#include <fcntl.h>
#include <sys/mman.h>

#include "zdtm.h"

static const char *const names[] = {"/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"};

int main(int argc, char **argv)
{
	char buf[16], *zero;
	int fd[5];

	test_init(argc, argv);
	for (int i = 0; i < 5; i++)
		fd[i] = MUST(open(names[i], O_RDWR));
	zero = MUST(mmap(NULL, 16 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd[1], 0));
	test_fill(zero, 4096, 1);
	test_ready();
	test_wait();
	CHECK_EQ(read(fd[0], buf, 16), 0);
	CHECK_EQ(write(fd[0], buf, 16), 16);
	memset(buf, 1, 16);
	CHECK_EQ(read(fd[1], buf, 16), 16);
	CHECK_EQ(buf[7], 0);
	CHECK(write(fd[2], buf, 16) == -1 && errno == ENOSPC, "/dev/full is not full");
	CHECK_EQ(read(fd[3], buf, 1), 1);
	CHECK_EQ(read(fd[4], buf, 16), 16);
	test_check_fill(zero, 4096, 1, "map of /dev/zero");
	CHECK_EQ(zero[5 * 4096], 0);
	test_pass();
}
