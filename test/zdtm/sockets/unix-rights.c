/* SPDX-License-Identifier: Apache-2.0 */
/* Descriptors on their way: a pipe end, a file, and a socket that itself holds a message, queued in unix
 * sockets. */
#include <fcntl.h>
#include <sys/socket.h>

#include "zdtm.h"

union control {
	struct cmsghdr head;
	char space[CMSG_SPACE(3 * sizeof(int))];
};

static void pass(int sock, const int *fds, int n, const char *text)
{
	union control control = {0};
	struct iovec iov = {(char *)text, strlen(text)};
	struct msghdr msg = {.msg_iov = &iov,
			     .msg_iovlen = 1,
			     .msg_control = &control,
			     .msg_controllen = CMSG_SPACE(n * sizeof(int))};

	control.head.cmsg_level = SOL_SOCKET;
	control.head.cmsg_type = SCM_RIGHTS;
	control.head.cmsg_len = CMSG_LEN(n * sizeof(int));
	memcpy(CMSG_DATA(&control.head), fds, n * sizeof(int));
	CHECK_EQ(sendmsg(sock, &msg, 0), strlen(text));
}

static int take(int sock, int *fds, const char *text)
{
	union control control = {0};
	char buf[100];
	struct iovec iov = {buf, strlen(text)};
	struct msghdr msg = {
		.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)};
	int n;

	CHECK_EQ(recvmsg(sock, &msg, MSG_DONTWAIT), strlen(text));
	CHECK(!memcmp(buf, text, strlen(text)), "the message says '%.*s'", (int)strlen(text), buf);
	if (!msg.msg_controllen)
		return 0;
	CHECK_EQ(control.head.cmsg_type, SCM_RIGHTS);
	n = (int)((control.head.cmsg_len - CMSG_LEN(0)) / sizeof(int));
	memcpy(fds, CMSG_DATA(&control.head), n * sizeof(int));
	return n;
}

int main(int argc, char **argv)
{
	int stream[2], packets[2], inner[2], pipes[2], file, fds[3], got[3];
	char buf[20];

	test_init(argc, argv);
	MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, stream));
	MUST(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, packets));
	MUST(socketpair(AF_UNIX, SOCK_DGRAM, 0, inner));
	MUST(pipe(pipes));
	test_write_file(test_path("file"), "0123456789");
	file = MUST(open(test_path("file"), O_RDONLY));
	MUST(lseek(file, 4, SEEK_SET));
	/* A chain: the pipe's only reading end is in inner, whose only reading end is in packets. */
	CHECK_EQ(write(pipes[1], "in the pipe", 11), 11);
	pass(inner[0], &pipes[0], 1, "pipe");
	MUST(close(pipes[0]));
	pass(packets[0], &inner[1], 1, "socket");
	MUST(close(inner[1]));
	CHECK_EQ(write(stream[0], "plain", 5), 5);
	fds[0] = file;
	fds[1] = pipes[1];
	pass(stream[0], fds, 2, "two");
	CHECK_EQ(write(stream[0], "plain again", 11), 11);
	test_ready();
	test_wait();
	CHECK_EQ(take(packets[1], &got[0], "socket"), 1);
	CHECK_EQ(take(got[0], &got[1], "pipe"), 1);
	CHECK_EQ(read(got[1], buf, sizeof(buf)), 11);
	CHECK(!memcmp(buf, "in the pipe", 11), "the pipe holds something else");
	CHECK_EQ(take(stream[1], got, "plain"), 0);
	CHECK_EQ(take(stream[1], got, "two"), 2);
	CHECK_EQ(lseek(file, 1, SEEK_CUR), 5);
	CHECK_EQ(lseek(got[0], 0, SEEK_CUR), 5); /* the same description */
	CHECK_EQ(take(stream[1], got, "plain again"), 0);
	test_pass();
}
