/* SPDX-License-Identifier: Apache-2.0 */
/* One open file description under several numbers and in several processes: the offset is common; a second
 * open has its own. */
#include <fcntl.h>

#include "zdtm.h"

int main(int argc, char **argv)
{
	int fd, twin, high, other, pipes[2];
	volatile int *turn;
	pid_t child;
	char c;

	test_init(argc, argv);
	turn = test_shared_flags(1);
	test_write_file(test_path("file"), "0123456789abcdef");
	fd = MUST(open(test_path("file"), O_RDONLY));
	other = MUST(open(test_path("file"), O_RDONLY));
	twin = MUST(dup(fd));
	high = MUST(fcntl(fd, F_DUPFD_CLOEXEC, 900));
	MUST(pipe(pipes));
	MUST(dup2(pipes[0], 500));
	child = test_fork();
	if (!child) {
		MUST(close(twin));
		MUST(close(other));
		MUST(dup2(fd, other)); /* the same number as in the parent, but another description */
		test_wait();
		while (!turn[0])
			test_sleep_ms(1);
		CHECK_EQ(read(other, &c, 1), 1);
		CHECK_EQ(c, '5');
		CHECK_EQ(read(high, &c, 1), 1);
		CHECK_EQ(c, '6');
		_exit(2);
	}
	test_ready();
	test_wait();
	CHECK_EQ(fcntl(high, F_GETFD), FD_CLOEXEC);
	CHECK_EQ(fcntl(twin, F_GETFD), 0);
	MUST(lseek(twin, 5, SEEK_SET));
	CHECK_EQ(lseek(fd, 0, SEEK_CUR), 5);
	CHECK_EQ(lseek(high, 0, SEEK_CUR), 5);
	CHECK_EQ(lseek(other, 0, SEEK_CUR), 0);
	turn[0] = 1;
	test_reap(child, 2);
	CHECK_EQ(lseek(fd, 0, SEEK_CUR), 7);
	MUST(fcntl(500, F_SETFL, O_NONBLOCK));
	CHECK_EQ(fcntl(pipes[0], F_GETFL) & O_NONBLOCK, O_NONBLOCK);
	CHECK(read(pipes[0], &c, 1) == -1 && errno == EAGAIN, "the pipe ends are not one description");
	MUST(close(pipes[1]));
	CHECK_EQ(read(500, &c, 1), 0); /* nobody else holds the writing end */
	test_pass();
}
