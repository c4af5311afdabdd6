/* SPDX-License-Identifier: Apache-2.0 */
/* UDP sockets: bound, connected, fresh. */
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
	struct sockaddr_in a;
	socklen_t len = sizeof(a);

	MUST(getsockname(fd, (struct sockaddr *)&a, &len));
	return a.sin_port;
}

int main(int argc, char **argv)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}},
			   to = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
	int bound, connected, fresh;
	in_port_t port;
	char buf[8];

	test_init(argc, argv);
	bound = MUST(socket(AF_INET, SOCK_DGRAM, 0));
	set(bound, SOL_SOCKET, SO_BROADCAST, 1);
	set(bound, SOL_SOCKET, SO_RCVBUF, 50000);
	MUST(bind(bound, (struct sockaddr *)&a, sizeof(a)));
	port = local(bound);
	connected = MUST(socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0));
	to.sin_port = port;
	MUST(connect(connected, (struct sockaddr *)&to, sizeof(to)));
	fresh = MUST(socket(AF_INET, SOCK_DGRAM, 0));
	in_port_t mine = local(connected);
	int rcvbuf = option(bound, SOL_SOCKET, SO_RCVBUF);
	test_ready();
	test_wait();
	CHECK_EQ(local(bound), port);
	CHECK_EQ(local(connected), mine);
	CHECK_EQ(option(bound, SOL_SOCKET, SO_BROADCAST), 1);
	CHECK_EQ(option(bound, SOL_SOCKET, SO_RCVBUF), rcvbuf);
	CHECK(recv(connected, buf, 8, 0) == -1 && errno == EAGAIN, "recv");
	CHECK_EQ(send(connected, "hi", 2, 0), 2);
	CHECK_EQ(recv(bound, buf, 8, 0), 2);
	to.sin_port = mine;
	CHECK_EQ(sendto(bound, "you", 3, 0, (struct sockaddr *)&to, sizeof(to)), 3);
	test_sleep_ms(1);
	CHECK_EQ(recv(connected, buf, 8, 0), 3);
	to.sin_port = port;
	CHECK_EQ(sendto(fresh, "a", 1, 0, (struct sockaddr *)&to, sizeof(to)), 1);
	CHECK_EQ(recv(bound, buf, 8, 0), 1);
	test_pass();
}
