/* SPDX-License-Identifier: Apache-2.0 */
/* UDP-Lite over IPv4 and IPv6, with the part of a datagram that its checksum covers. */
#include <arpa/inet.h>
#include <netinet/in.h>

#include "sockopt.h"

#define SOL_UDPLITE 136
#define SEND_CSCOV  10
#define RECV_CSCOV  11

int main(int argc, char **argv)
{
	struct sockaddr_in6 six = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
	struct sockopt o[] = {OPT(SOL_UDPLITE, SEND_CSCOV, 20), OPT(SOL_UDPLITE, RECV_CSCOV, 16)};
	struct sockopt o6[] = {OPT(SOL_UDPLITE, SEND_CSCOV, 24), OPT(SOL_SOCKET, SO_PRIORITY, 4)};
	socklen_t n = sizeof(a), n6 = sizeof(six);
	char b[64];

	test_init(argc, argv);
	int server = socket(AF_INET, SOCK_DGRAM, IPPROTO_UDPLITE);

	if (server < 0)
		test_skip("no UDP-Lite: %s", strerror(errno));
	int client = MUST(socket(AF_INET, SOCK_DGRAM, IPPROTO_UDPLITE));
	int server6 = MUST(socket(AF_INET6, SOCK_DGRAM, IPPROTO_UDPLITE));

	MUST(bind(server, (struct sockaddr *)&a, n));
	MUST(getsockname(server, (struct sockaddr *)&a, &n));
	MUST(connect(client, (struct sockaddr *)&a, n));
	MUST(bind(server6, (struct sockaddr *)&six, n6));
	MUST(getsockname(server6, (struct sockaddr *)&six, &n6));
	SOCKOPTS_SET(client, o, 2);
	SOCKOPTS_SET(server6, o6, 2);
	test_ready();
	test_wait();
	SOCKOPTS_CHECK(client, o);
	SOCKOPTS_CHECK(server6, o6);
	CHECK_EQ(send(client, "0123456789012345678901234567890", 31, 0), 31);
	CHECK_EQ(recv(server, b, sizeof(b), 0), 31);
	int client6 = MUST(socket(AF_INET6, SOCK_DGRAM, IPPROTO_UDPLITE));

	CHECK_EQ(sendto(client6, "ab", 2, 0, (struct sockaddr *)&six, sizeof(six)), 2);
	CHECK_EQ(recv(server6, b, sizeof(b), 0), 2);
	test_pass();
}
