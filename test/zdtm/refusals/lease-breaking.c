/* SPDX-License-Identifier: Apache-2.0 */
/* A lease that another process waits for: it has to be given up first. */
#include <fcntl.h>
#include <signal.h>

#include "zdtm.h"

int main(int argc, char **argv)
{
	pid_t child;
	int fd;

	test_init(argc, argv);
	MUST((intptr_t)signal(SIGIO, SIG_IGN));
	fd = MUST(open(test_path("file"), O_RDWR | O_CREAT, 0600));
	MUST(fcntl(fd, F_SETLEASE, F_WRLCK));
	child = test_fork();
	if (!child) {
		close(MUST(open(test_path("file"), O_RDONLY)));
		_exit(1);
	}
	test_wait_state(child, "S");
	test_sleep_ms(20);
	test_ready();
	test_wait();
	MUST(fcntl(fd, F_SETLEASE, F_UNLCK));
	test_reap(child, 1);
	test_pass();
}
