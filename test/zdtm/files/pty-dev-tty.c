/* SPDX-License-Identifier: Apache-2.0 */
/* An open /dev/tty: still the controlling terminal. */
#define _XOPEN_SOURCE 600
#include <fcntl.h>
#include <termios.h>

#include "zdtm.h"

int main(int argc, char **argv)
{
	int master, tty;
	pid_t child;

	test_init(argc, argv);
	master = MUST(posix_openpt(O_RDWR | O_NOCTTY));
	MUST(unlockpt(master));
	child = test_fork();
	if (!child) {
		MUST(setsid());
		close(MUST(open(ptsname(master), O_RDWR)));
		close(master);
		tty = MUST(open("/dev/tty", O_RDWR));
		test_ready();
		test_wait();
		CHECK_EQ(tcgetsid(tty), getpid());
		CHECK_EQ(tcgetpgrp(tty), getpgrp());
		CHECK_EQ(write(tty, "x", 1), 1);
		_exit(3);
	}
	test_wait();
	CHECK_EQ(read(master, &tty, 1), 1);
	test_reap(child, 3);
	test_pass();
}
