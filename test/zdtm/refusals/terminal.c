/* SPDX-License-Identifier: Apache-2.0 */
/* A pseudo-terminal whose master a process outside of the tree has. */
#include <fcntl.h>
#include <pty.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "zdtm.h"

int main(int argc, char **argv)
{
	int master, slave, there;
	pid_t middle;
	char c = 0;

	test_init(argc, argv);
	MUST(mkfifo(test_path("fifo"), 0600));
	if (openpty(&master, &slave, NULL, NULL, NULL)) /* 3, 4 */
		test_skip("no pseudo-terminal here: %s", strerror(errno));
	middle = test_fork();
	if (!middle) {
		if (!test_fork()) {
			close(slave);
			_exit(read(master, &c, 1) != 1 ||
			      write(MUST(open(test_path("fifo"), O_WRONLY)), &c, 1) != 1);
		}
		_exit(0);
	}
	test_reap(middle, 0);
	close(master);
	test_sleep_ms(20);
	test_ready();
	test_wait();
	CHECK_EQ(write(slave, "x", 1), 1);
	there = MUST(open(test_path("fifo"), O_RDONLY));
	CHECK_EQ(read(there, &c, 1), 1);
	CHECK_EQ(c, 'x');
	test_pass();
}
