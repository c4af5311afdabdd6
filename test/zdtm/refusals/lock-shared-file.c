/* SPDX-License-Identifier: Apache-2.0 */
/* Locks on a file that the destination has too, where this very process holds them. */
#include <fcntl.h>

#include "zdtm.h"

int main(int argc, char **argv)
{
	struct flock l = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 3, .l_len = 4};
	pid_t child;
	int fd;

	test_init(argc, argv);
	fd = MUST(open(test_path("file"), O_RDWR | O_CREAT, 0600));
	MUST(fcntl(fd, F_SETLK, &l));
	test_ready();
	test_wait();
	child = test_fork();
	if (!child)
		_exit(fcntl(fd, F_SETLK, &l) == -1 && errno == EAGAIN ? 1 : 0);
	test_reap(child, 1);
	test_pass();
}
