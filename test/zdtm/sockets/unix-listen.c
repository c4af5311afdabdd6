/* SPDX-License-Identifier: Apache-2.0 */
/* Listening unix sockets, by path and abstract; established ones; a bound datagram socket; shutdown. */
#include <stddef.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "zdtm.h"

static socklen_t address(struct sockaddr_un *a, const char *name, bool abstract)
{
	memset(a, 0, sizeof(*a));
	a->sun_family = AF_UNIX;
	if (!abstract) {
		snprintf(a->sun_path, sizeof(a->sun_path), "%s", name);
		return sizeof(*a);
	}
	memcpy(a->sun_path + 1, name, strlen(name));
	return offsetof(struct sockaddr_un, sun_path) + 1 + strlen(name);
}

static int listener(const char *name, bool abstract, int type)
{
	int fd = MUST(socket(AF_UNIX, type, 0));
	struct sockaddr_un a;
	socklen_t len = address(&a, name, abstract);

	MUST(bind(fd, (struct sockaddr *)&a, len));
	if (type != SOCK_DGRAM)
		MUST(listen(fd, 7));
	return fd;
}

static int client(const char *name, bool abstract, int type)
{
	int fd = MUST(socket(AF_UNIX, type, 0));
	struct sockaddr_un a;
	socklen_t len = address(&a, name, abstract);

	MUST(connect(fd, (struct sockaddr *)&a, len));
	return fd;
}

static void talk(int from, int to)
{
	char buf[8];

	CHECK_EQ(write(from, "hi", 2), 2);
	CHECK_EQ(read(to, buf, 8), 2);
}

int main(int argc, char **argv)
{
	int by_path, abstract, dgram, old[2], waiting, fresh[2], half[2], accepting = 0;
	struct sockaddr_un a, peer;
	socklen_t len = sizeof(peer), one = sizeof(int);
	char buf[100];
	struct ucred cred;
	struct stat st;

	test_init(argc, argv);
	MUST(chdir(test_path("."))); /* names of sockets are short */
	by_path = listener("listen.sock", false, SOCK_STREAM);
	MUST(chmod("listen.sock", 0640));
	snprintf(buf, sizeof(buf), "ferry-zdtm-%d", (int)getpid());
	abstract = listener(buf, true, SOCK_SEQPACKET);
	dgram = listener("dgram.sock", false, SOCK_DGRAM);
	old[0] = client("listen.sock", false, SOCK_STREAM);
	old[1] = MUST(accept(by_path, NULL, NULL));
	CHECK_EQ(write(old[0], "queued", 6), 6);
	MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, half));
	CHECK_EQ(write(half[0], "end", 3), 3);
	MUST(shutdown(half[0], SHUT_WR));
	waiting = client("dgram.sock", false, SOCK_DGRAM);
	CHECK_EQ(write(waiting, "datagram", 8), 8);
	test_ready();
	test_wait();
	CHECK_EQ(read(old[1], buf, sizeof(buf)), 6);
	talk(old[1], old[0]);
	MUST(getpeername(old[0], (struct sockaddr *)&peer, &len));
	address(&a, "listen.sock", false);
	CHECK(!strcmp(peer.sun_path, a.sun_path), "the peer's name is '%s'", peer.sun_path);
	len = sizeof(cred);
	MUST(getsockopt(old[1], SOL_SOCKET, SO_PEERCRED, &cred, &len));
	CHECK_EQ(cred.pid, getpid());
	MUST(getsockopt(by_path, SOL_SOCKET, SO_ACCEPTCONN, &accepting, &one));
	CHECK_EQ(accepting, 1);
	fresh[0] = client("listen.sock", false, SOCK_STREAM);
	fresh[1] = MUST(accept(by_path, NULL, NULL));
	talk(fresh[0], fresh[1]);
	snprintf(buf, sizeof(buf), "ferry-zdtm-%d", (int)getpid());
	fresh[0] = client(buf, true, SOCK_SEQPACKET);
	fresh[1] = MUST(accept(abstract, NULL, NULL));
	talk(fresh[0], fresh[1]);
	CHECK_EQ(read(dgram, buf, sizeof(buf)), 8);
	talk(waiting, dgram);
	MUST(stat("listen.sock", &st));
	CHECK_EQ(st.st_mode & 07777, 0640);
	CHECK_EQ(read(half[1], buf, sizeof(buf)), 3);
	CHECK_EQ(read(half[1], buf, sizeof(buf)), 0);
	talk(half[1], half[0]);
	CHECK(send(half[0], "x", 1, MSG_NOSIGNAL) == -1 && errno == EPIPE,
	      "the closed direction is open again");
	test_pass();
}
