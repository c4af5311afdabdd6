/* SPDX-License-Identifier: Apache-2.0 */
/* UDP: shut down in each way, connected again and again, corked with nothing in it, broadcast, sockets that
 * share a port; and all options that can be read. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <poll.h>

#include "sockopt.h"

static struct sockopt options[] = {
	OPT(SOL_SOCKET, SO_BROADCAST, 1),  OPT(SOL_IP, IP_TOS, 0x10),
	OPT(SOL_SOCKET, SO_MARK, 77),      OPT(SOL_SOCKET, SO_RXQ_OVFL, 1),
	OPT(SOL_SOCKET, SO_NO_CHECK, 1),   OPT(SOL_SOCKET, SO_DONTROUTE, 1),
	OPT(SOL_SOCKET, SO_RCVLOWAT, 3),   OPT(SOL_SOCKET, SO_TIMESTAMPNS, 1),
	OPT(SOL_SOCKET, SO_SNDBUF, 30000), OPT(SOL_SOCKET, SO_RCVBUF, 40000),
	OPT(SOL_SOCKET, SO_PRIORITY, 5),   OPT(SOL_IP, IP_TTL, 33),
	OPT(SOL_IP, IP_FREEBIND, 1),       OPT(SOL_IP, IP_TRANSPARENT, 1),
	OPT(SOL_IP, IP_PKTINFO, 1),        OPT(SOL_IP, IP_RECVTTL, 1),
	OPT(SOL_IP, IP_RECVTOS, 1),        OPT(SOL_IP, IP_RECVERR, 1),
	OPT(SOL_IP, IP_RECVOPTS, 1),       OPT(SOL_IP, IP_RETOPTS, 1),
	OPT(SOL_IP, IP_MINTTL, 2),         OPT(SOL_IP, IP_ORIGDSTADDR, 1),
	OPT(SOL_IP, IP_MTU_DISCOVER, 3),   OPT(SOL_IP, IP_MULTICAST_TTL, 9),
	OPT(SOL_IP, IP_MULTICAST_LOOP, 0), OPT(SOL_IP, IP_MULTICAST_ALL, 0),
	OPT(SOL_UDP, UDP_GRO, 1),          OPT(SOL_UDP, UDP_SEGMENT, 1000),
	OPT(SOL_UDP, UDP_CORK, 1),
};

static int bound(in_port_t *port, int type)
{
	struct sockaddr_in a = {
		.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}, .sin_port = *port};
	int fd = MUST(socket(AF_INET, SOCK_DGRAM | type, 0)), one = 1;
	socklen_t n = sizeof(a);

	MUST(setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &one, sizeof(one)));
	MUST(bind(fd, (struct sockaddr *)&a, sizeof(a)));
	MUST(getsockname(fd, (struct sockaddr *)&a, &n));
	*port = a.sin_port;
	return fd;
}

static int to(in_port_t port)
{
	struct sockaddr_in a = {
		.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}, .sin_port = port};
	int fd = MUST(socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0));

	MUST(connect(fd, (struct sockaddr *)&a, sizeof(a)));
	return fd;
}

static int events(int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLIN | POLLOUT | POLLRDHUP};

	MUST(poll(&p, 1, 0));
	return p.revents;
}

int main(int argc, char **argv)
{
	in_port_t port = 0, shared = 0;
	struct sockaddr none = {.sa_family = AF_UNSPEC};
	char b[8];

	test_init(argc, argv);
	int server = bound(&port, 0), rd = to(port), wr = to(port), both = to(port), again = to(port);
	int lone = MUST(socket(AF_INET, SOCK_DGRAM, 0)), many = MUST(socket(AF_INET, SOCK_DGRAM, 0));
	int first = bound(&shared, 0), second = bound(&shared, 0);

	MUST(shutdown(rd, SHUT_RD));
	MUST(shutdown(wr, SHUT_WR));
	MUST(shutdown(both, SHUT_RDWR));
	CHECK(shutdown(lone, SHUT_RDWR) < 0 && errno == ENOTCONN, "shutdown of one that is not connected");
	MUST(connect(again, &none, sizeof(none)));
	SOCKOPTS_SET(many, options, 20);
	int e_rd = events(rd), e_wr = events(wr), e_both = events(both), e_lone = events(lone);

	CHECK(send(wr, "x", 1, MSG_NOSIGNAL) < 0 && errno == EPIPE, "sending after SHUT_WR");
	test_ready();
	test_wait();
	CHECK_EQ(events(rd), e_rd);
	CHECK_EQ(events(wr), e_wr);
	CHECK_EQ(events(both), e_both);
	CHECK_EQ(events(lone), e_lone);
	CHECK(send(wr, "x", 1, MSG_NOSIGNAL) < 0 && errno == EPIPE, "SHUT_WR is forgotten");
	CHECK(send(both, "x", 1, MSG_NOSIGNAL) < 0 && errno == EPIPE, "SHUT_RDWR is forgotten");
	CHECK_EQ(send(rd, "ab", 2, 0), 2);
	CHECK_EQ(recv(server, b, sizeof(b), 0), 2);
	CHECK(send(again, "x", 1, 0) < 0 && errno == EDESTADDRREQ, "one that was disconnected has a peer");
	SOCKOPTS_CHECK(many, options);
	struct sockaddr_in a = {
		.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}, .sin_port = shared};
	struct pollfd p[2] = {{.fd = first, .events = POLLIN}, {.fd = second, .events = POLLIN}};

	CHECK_EQ(sendto(server, "abc", 3, 0, (struct sockaddr *)&a, sizeof(a)), 3);
	CHECK_EQ(poll(p, 2, 5000), 1);
	test_pass();
}
