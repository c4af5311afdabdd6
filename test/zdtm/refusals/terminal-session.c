/* SPDX-License-Identifier: Apache-2.0 */
/* A master whose terminal is that of a session outside of the tree. */
#include <fcntl.h>
#include <pty.h>
#include <stdlib.h>
#include <utmp.h>

#include "zdtm.h"

int main(int argc, char **argv)
{
	int master, slave;
	pid_t middle;
	char c;

	test_init(argc, argv);
	if (openpty(&master, &slave, NULL, NULL, NULL)) /* 3, 4 */
		test_skip("no pseudo-terminal here: %s", strerror(errno));
	middle = test_fork();
	if (!middle) {
		if (!test_fork()) {
			close(master);
			MUST(login_tty(slave));
			MUST(write(0, "r", 1));
			_exit(read(0, &c, 1) != 1);
		}
		_exit(0);
	}
	test_reap(middle, 0);
	close(slave);
	CHECK_EQ(read(master, &c, 1), 1);
	test_ready();
	test_wait();
	CHECK_EQ(write(master, "\n", 1), 1);
	test_pass();
}
