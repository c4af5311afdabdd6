/* SPDX-License-Identifier: Apache-2.0 */
/* A pair of unix stream sockets with data waiting in both directions, used by two processes. */
#include <fcntl.h>
#include <sys/socket.h>

#include "zdtm.h"

static void receive(int fd, const char *want)
{
	char buf[100];
	ssize_t n = MUST(recv(fd, buf, strlen(want), MSG_WAITALL)); /* no boundaries in a stream */

	CHECK(n == (ssize_t)strlen(want) && !memcmp(buf, want, n), "received '%.*s' instead of '%s'", (int)n,
	      buf, want);
}

static void send_to(int fd, const char *text)
{
	CHECK_EQ(send(fd, text, strlen(text), MSG_NOSIGNAL), strlen(text));
}

int main(int argc, char **argv)
{
	int pair[2], nonblock[2], full[2], type;
	socklen_t len = sizeof(type);
	static char block[4096];
	pid_t child;
	char c;
	int n = 0;

	test_init(argc, argv);
	MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
	MUST(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, nonblock));
	MUST(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, full));
	send_to(pair[0], "to the child");
	send_to(pair[1], "to the parent");
	test_fill(block, sizeof(block), 1);
	while (send(full[0], block, sizeof(block), 0) == sizeof(block))
		n++;
	CHECK(errno == EAGAIN || errno == ENOBUFS, "filling the queue");
	child = test_fork();
	if (!child) {
		MUST(close(pair[0]));
		test_wait();
		receive(pair[1], "to the child");
		receive(pair[1], "later"); /* waits for it */
		send_to(pair[1], "answer");
		_exit(4);
	}
	MUST(close(pair[1]));
	test_ready();
	test_wait();
	MUST(getsockopt(pair[0], SOL_SOCKET, SO_TYPE, &type, &len));
	CHECK_EQ(type, SOCK_STREAM);
	CHECK_EQ(fcntl(nonblock[0], F_GETFD), FD_CLOEXEC);
	CHECK(recv(nonblock[0], &c, 1, 0) == -1 && errno == EAGAIN, "the empty pair");
	receive(pair[0], "to the parent");
	send_to(pair[0], "later");
	receive(pair[0], "answer");
	for (int i = 0; i < n; i++) {
		CHECK_EQ(recv(full[1], block, sizeof(block), MSG_WAITALL), sizeof(block));
		test_check_fill(block, sizeof(block), 1, "a block of the full queue");
	}
	send_to(full[0], "room again");
	test_reap(child, 4);
	CHECK_EQ(recv(pair[0], &c, 1, 0), 0); /* the only peer is gone */
	test_pass();
}
