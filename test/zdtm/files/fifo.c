/* SPDX-License-Identifier: Apache-2.0 */
/* Named pipes: both ends in one process, ends in two, and content. */
#include <fcntl.h>
#include <sys/stat.h>

#include "zdtm.h"

int main(int argc, char **argv)
{
	char buf[100];
	int both, rd, wr;
	pid_t child;

	test_init(argc, argv);
	MUST(mkfifo(test_path("both"), 0600));
	MUST(mkfifo(test_path("ends"), 0600));
	both = MUST(open(test_path("both"), O_RDWR));
	CHECK_EQ(write(both, "abcdef", 6), 6);
	CHECK_EQ(read(both, buf, 2), 2);
	child = test_fork();
	if (!child) {
		wr = MUST(open(test_path("ends"), O_WRONLY));
		CHECK_EQ(write(wr, "before", 6), 6);
		test_wait();
		CHECK_EQ(write(wr, "after", 5), 5);
		_exit(6);
	}
	rd = MUST(open(test_path("ends"), O_RDONLY));
	test_sleep_ms(20);
	test_ready();
	test_wait();
	CHECK_EQ(read(both, buf, 100), 4);
	CHECK(!memcmp(buf, "cdef", 4), "the fifo holds something else");
	test_reap(child, 6);
	CHECK_EQ(read(rd, buf, 100), 11);
	CHECK(!memcmp(buf, "beforeafter", 11), "the fifo holds something else");
	CHECK_EQ(read(rd, buf, 100), 0);
	CHECK_EQ(write(both, "x", 1), 1);
	CHECK_EQ(read(both, buf, 1), 1);
	wr = MUST(open(test_path("ends"), O_WRONLY)); /* the name still leads to it */
	CHECK_EQ(write(wr, "y", 1), 1);
	CHECK_EQ(read(rd, buf, 1), 1);
	test_pass();
}
