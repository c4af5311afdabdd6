/* SPDX-License-Identifier: Apache-2.0 */
/* Listening TCP sockets on IPv6 take connections after the restore. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include "zdtm.h"

static int option(int fd, int level, int name)
{
	int v = -1;
	socklen_t len = sizeof(v);

	MUST(getsockopt(fd, level, name, &v, &len));
	return v;
}

static void set(int fd, int level, int name, int v)
{
	MUST(setsockopt(fd, level, name, &v, sizeof(v)));
}

static in_port_t local(int fd)
{
	struct sockaddr_in6 a;
	socklen_t len = sizeof(a);

	MUST(getsockname(fd, (struct sockaddr *)&a, &len));
	return a.sin6_port;
}

int main(int argc, char **argv)
{
	struct sockaddr_in6 a = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT},
			    to = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
	int listener, any, closed, fd, peer;
	in_port_t port;
	char c;

	test_init(argc, argv);
	listener = MUST(socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0));
	set(listener, SOL_SOCKET, SO_REUSEADDR, 1);
	set(listener, SOL_SOCKET, SO_KEEPALIVE, 1);
	set(listener, IPPROTO_TCP, TCP_NODELAY, 1);
	set(listener, IPPROTO_TCP, TCP_DEFER_ACCEPT, 0);
	MUST(bind(listener, (struct sockaddr *)&a, sizeof(a)));
	MUST(listen(listener, 9));
	port = local(listener);
	any = MUST(socket(AF_INET6, SOCK_STREAM | SOCK_NONBLOCK, 0));
	MUST(listen(any, 1)); /* on a port that the kernel chose */
	closed = MUST(socket(AF_INET6, SOCK_STREAM, 0));
	test_ready();
	test_wait();
	CHECK_EQ(local(listener), port);
	CHECK_EQ(option(listener, SOL_SOCKET, SO_REUSEADDR), 1);
	CHECK_EQ(option(listener, SOL_SOCKET, SO_KEEPALIVE), 1);
	CHECK_EQ(option(listener, IPPROTO_TCP, TCP_NODELAY), 1);
	CHECK_EQ(option(listener, SOL_SOCKET, SO_ACCEPTCONN), 1);
	CHECK(accept(any, NULL, NULL) == -1 && errno == EAGAIN, "accept on the second listener");
	to.sin6_port = port;
	fd = MUST(socket(AF_INET6, SOCK_STREAM, 0));
	MUST(connect(fd, (struct sockaddr *)&to, sizeof(to)));
	peer = MUST(accept(listener, NULL, NULL));
	CHECK_EQ(write(fd, "x", 1), 1);
	CHECK_EQ(read(peer, &c, 1), 1);
	to.sin6_port = local(any);
	MUST(connect(closed, (struct sockaddr *)&to, sizeof(to)));
	test_pass();
}
