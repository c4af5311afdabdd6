/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Descriptors in queues of sockets that are themselves in queues, two deep and nowhere else, and messages
 * with the credentials of their senders: of this process, of a child, and forged ones.
 */
#include <sys/eventfd.h>
#include <sys/socket.h>

#include "zdtm.h"

union control {
	struct cmsghdr head;
	char bytes[CMSG_SPACE(2 * sizeof(int)) + CMSG_SPACE(sizeof(struct ucred))];
};

static void post(int to, const char *text, const int *fds, int n, const struct ucred *who)
{
	union control control = {0};
	struct iovec v = {(void *)text, strlen(text)};
	struct msghdr h = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = &control};
	struct cmsghdr *k = &control.head;

	k->cmsg_level = SOL_SOCKET;
	k->cmsg_type = who ? SCM_CREDENTIALS : SCM_RIGHTS;
	k->cmsg_len = who ? CMSG_LEN(sizeof(*who)) : CMSG_LEN(n * sizeof(int));
	if (who)
		memcpy(CMSG_DATA(k), who, sizeof(*who));
	else
		memcpy(CMSG_DATA(k), fds, n * sizeof(int));
	h.msg_controllen = CMSG_ALIGN(k->cmsg_len);
	CHECK_EQ(sendmsg(to, &h, 0), strlen(text));
}

/* Returns how many descriptors came. */
static int take(int from, const char *text, int *fds, struct ucred *who)
{
	union control control;
	char got[64] = "";
	struct iovec v = {got, sizeof(got) - 1};
	struct msghdr h = {
		.msg_iov = &v, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)};
	int n = 0;

	MUST(recvmsg(from, &h, 0));
	CHECK(!strcmp(got, text), "\"%s\" came, not \"%s\"", got, text);
	for (struct cmsghdr *k = CMSG_FIRSTHDR(&h); k; k = CMSG_NXTHDR(&h, k)) {
		if (k->cmsg_type == SCM_RIGHTS) {
			n = (int)((k->cmsg_len - CMSG_LEN(0)) / sizeof(int));
			memcpy(fds, CMSG_DATA(k), n * sizeof(int));
		} else if (who) {
			memcpy(who, CMSG_DATA(k), sizeof(*who));
		}
	}
	return n;
}

static void check_from(int fd, const char *text, pid_t pid, uid_t uid)
{
	struct ucred who = {0};

	CHECK_EQ(take(fd, text, NULL, &who), 0);
	CHECK_EQ(who.pid, pid);
	CHECK_EQ(who.uid, uid);
}

int main(int argc, char **argv)
{
	int outer[2], middle[2], inner[2], names[2], one = 1, fds[2], deep[2], counter;
	uint64_t v;

	test_init(argc, argv);
	MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, outer));
	MUST(socketpair(AF_UNIX, SOCK_DGRAM, 0, middle));
	MUST(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, inner));
	MUST(socketpair(AF_UNIX, SOCK_DGRAM, 0, names));
	counter = MUST(eventfd(42, 0));
	post(inner[0], "a counter", &counter, 1, NULL);
	post(middle[0], "a socket", inner, 2, NULL);
	post(outer[0], "sockets", middle, 2, NULL);
	MUST(close(counter));
	for (int i = 0; i < 2; i++) {
		MUST(close(inner[i]));
		MUST(close(middle[i]));
	}
	MUST(setsockopt(names[1], SOL_SOCKET, SO_PASSCRED, &one, sizeof(one)));

	pid_t child = test_fork();

	if (!child) {
		struct ucred me = {getpid(), 0, 0};

		post(names[0], "from a child", NULL, 0, &me);
		MUST(write(outer[1], "done", 4));
		test_wait();
		_exit(0);
	}
	char done[4];

	CHECK_EQ(recv(outer[0], done, 4, MSG_WAITALL), 4);
	post(names[0], "from me", NULL, 0, &(struct ucred){getpid(), 0, 0});
	post(names[0], "as another user", NULL, 0, &(struct ucred){getpid(), 1234, 77});
	test_ready();
	test_wait();
	CHECK_EQ(take(outer[1], "sockets", fds, NULL), 2);
	CHECK_EQ(take(fds[1], "a socket", deep, NULL), 2);
	CHECK_EQ(take(deep[1], "a counter", &counter, NULL), 1);
	CHECK_EQ(read(counter, &v, 8), 8);
	CHECK_EQ(v, 42);
	/* Still two ways. */
	CHECK_EQ(send(deep[1], "back", 4, 0), 4);
	CHECK_EQ(recv(deep[0], done, 4, 0), 4);
	check_from(names[1], "from a child", child, 0);
	check_from(names[1], "from me", getpid(), 0);
	check_from(names[1], "as another user", getpid(), 1234);
	test_reap(child, 0);
	test_pass();
}
