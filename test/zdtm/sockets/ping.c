/* SPDX-License-Identifier: Apache-2.0 */
/* Ping sockets (ICMP datagrams): their number stays, so answers find them. */
#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/icmp.h>
#include <netinet/in.h>

#include "sockopt.h"

static void ping(int fd, const struct sockaddr_in *to, uint16_t sequence)
{
	struct icmphdr h = {.type = ICMP_ECHO, .un.echo.sequence = htons(sequence)}, answer;
	struct timeval soon = {.tv_sec = 10};

	MUST(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &soon, sizeof(soon)));
	if (to)
		CHECK_EQ(sendto(fd, &h, sizeof(h), 0, (const struct sockaddr *)to, sizeof(*to)), sizeof(h));
	else
		CHECK_EQ(send(fd, &h, sizeof(h), 0), sizeof(h));
	CHECK_EQ(recv(fd, &answer, sizeof(answer), 0), sizeof(answer));
	CHECK_EQ(answer.type, ICMP_ECHOREPLY);
	CHECK_EQ(ntohs(answer.un.echo.sequence), sequence);
}

static in_port_t number(int fd)
{
	struct sockaddr_in a;
	socklen_t n = sizeof(a);

	MUST(getsockname(fd, (struct sockaddr *)&a, &n));
	return a.sin_port;
}

int main(int argc, char **argv)
{
	struct sockaddr_in home = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}},
			   own = {.sin_family = AF_INET, .sin_port = htons(4711)};
	struct sockopt o[] = {OPT(SOL_IP, IP_TTL, 9), OPT(SOL_IP, IP_RECVERR, 1)};

	test_init(argc, argv);
	/* Of this network namespace only. */
	int range = open("/proc/sys/net/ipv4/ping_group_range", O_WRONLY | O_CLOEXEC);

	if (range >= 0) {
		(void)!write(range, "0 100", 5);
		close(range);
	}
	int fd = socket(AF_INET, SOCK_DGRAM, IPPROTO_ICMP);

	if (fd < 0)
		test_skip("no ping sockets (net.ipv4.ping_group_range): %s", strerror(errno));
	int connected = MUST(socket(AF_INET, SOCK_DGRAM, IPPROTO_ICMP));

	MUST(bind(fd, (struct sockaddr *)&own, sizeof(own)));
	MUST(connect(connected, (struct sockaddr *)&home, sizeof(home)));
	SOCKOPTS_SET(fd, o, 2);
	ping(fd, &home, 1);
	ping(connected, NULL, 2);
	in_port_t mine = number(connected);

	test_ready();
	test_wait();
	SOCKOPTS_CHECK(fd, o);
	CHECK_EQ(ntohs(number(fd)), 4711);
	CHECK_EQ(number(connected), mine);
	ping(fd, &home, 3);
	ping(connected, NULL, 4);
	test_pass();
}
