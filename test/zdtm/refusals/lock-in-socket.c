/* SPDX-License-Identifier: Apache-2.0 */
/* A descriptor that holds a lock and is only queued in a socket. */
#include <fcntl.h>
#include <sys/file.h>
#include <sys/socket.h>

#include "uffd.h"
#include "zdtm.h"

int main(int argc, char **argv)
{
	int pair[2], fd;

	test_init(argc, argv);
	MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, pair)); /* 3, 4 */
	fd = MUST(open(test_path("file"), O_RDWR | O_CREAT, 0600));
	MUST(flock(fd, LOCK_EX));
	send_fd(pair[0], fd);
	close(fd);
	test_ready();
	test_wait();
	fd = receive_fd(pair[1]);
	CHECK(flock(MUST(open(test_path("file"), O_RDWR)), LOCK_SH | LOCK_NB) && errno == EWOULDBLOCK,
	      "the lock is lost");
	test_pass();
}
