/* SPDX-License-Identifier: Apache-2.0 */
/* A unix socket whose peer is in a process that is not of the tree: a sibling that the daemon's parent left
 * behind. */
#include <sys/socket.h>

#include "zdtm.h"

int main(int argc, char **argv)
{
	int pair[2];
	pid_t middle;
	char c;

	test_init(argc, argv);
	MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
	middle = test_fork();
	if (!middle) {
		if (!test_fork()) { /* an orphan at the init of the host: not in the tree */
			close(pair[0]);
			if (read(pair[1], &c, 1) == 1 && write(pair[1], "y", 1) != 1)
				_exit(1);
			_exit(0);
		}
		_exit(0);
	}
	test_reap(middle, 0);
	MUST(close(pair[1]));
	test_sleep_ms(20);
	test_ready();
	test_wait();
	CHECK_EQ(write(pair[0], "x", 1), 1);
	CHECK_EQ(read(pair[0], &c, 1), 1);
	CHECK_EQ(c, 'y');
	test_pass();
}
