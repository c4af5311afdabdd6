/* SPDX-License-Identifier: Apache-2.0 */
/* Raw sockets over IPv4 and IPv6: bound, connected to an address without a port, with their own headers and
 * filters. */
#include <arpa/inet.h>
#include <linux/filter.h>
#include <linux/icmp.h>
#include <netinet/in.h>
#include <poll.h>

#include "sockopt.h"

#define SOL_RAW_     255
#define ICMP_FILTER_ 1
#define PROTOCOL     253 /* for experiments */

static struct sockopt headers[] = {OPT(SOL_IP, IP_HDRINCL, 0), OPT(SOL_IP, IP_TTL, 44),
				   OPT(SOL_SOCKET, SO_PRIORITY, 3)};
static struct sockopt six_options[] = {OPT(SOL_IPV6, IPV6_CHECKSUM, 2), OPT(SOL_IPV6, IPV6_UNICAST_HOPS, 7),
				       OPT(SOL_IPV6, IPV6_RECVPKTINFO, 1), OPT(SOL_IPV6, IPV6_TCLASS, 0x20)};

static void check_peer(int fd, const char *table, unsigned want)
{
	char text[8192], link[64], path[64];
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	n = MUST(readlink(path, link, sizeof(link) - 1));
	link[n] = 0;
	unsigned long ino = strtoul(strchr(link, '[') + 1, NULL, 10);

	test_read_file(table, text, sizeof(text));
	for (char *line = strchr(text, '\n'); line && line[1]; line = strchr(line + 1, '\n')) {
		unsigned remote;
		unsigned long there;

		if (sscanf(line + 1, "%*s %*s %8x:%*s %*s %*s %*s %*s %*s %*s %lu", &remote, &there) == 2 &&
		    there == ino) {
			CHECK_EQ(remote, want);
			return;
		}
	}
	test_fail("%s does not have the socket", table);
}

int main(int argc, char **argv)
{
	struct sockaddr_in home = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
	struct sockaddr_in6 home6 = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
	struct sock_filter code[] = {BPF_STMT(BPF_LD | BPF_W | BPF_LEN, 0),
				     BPF_JUMP(BPF_JMP | BPF_JGT | BPF_K, 24, 0, 1),
				     BPF_STMT(BPF_RET | BPF_K, 0), BPF_STMT(BPF_RET | BPF_K, -1)};
	struct sock_fprog program = {4, code};
	uint32_t mask = ~(1u << ICMP_ECHOREPLY), got = 0;
	socklen_t n = sizeof(got);
	char b[128];

	test_init(argc, argv);
	int fd = MUST(socket(AF_INET, SOCK_RAW, PROTOCOL)),
	    sender = MUST(socket(AF_INET, SOCK_RAW, PROTOCOL));
	int icmp = MUST(socket(AF_INET, SOCK_RAW, IPPROTO_ICMP)),
	    own = MUST(socket(AF_INET, SOCK_RAW, IPPROTO_RAW));
	int six = MUST(socket(AF_INET6, SOCK_RAW, PROTOCOL));

	MUST(bind(fd, (struct sockaddr *)&home, sizeof(home)));
	MUST(setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof(program)));
	MUST(connect(sender, (struct sockaddr *)&home, sizeof(home)));
	MUST(setsockopt(icmp, SOL_RAW_, ICMP_FILTER_, &mask, sizeof(mask)));
	MUST(bind(six, (struct sockaddr *)&home6, sizeof(home6)));
	SOCKOPTS_SET(own, headers, 3);
	SOCKOPTS_SET(six, six_options, 3);
	test_ready();
	test_wait();
	SOCKOPTS_CHECK(own, headers);
	SOCKOPTS_CHECK(six, six_options);
	check_peer(sender, "/proc/self/net/raw", htonl(INADDR_LOOPBACK));
	MUST(getsockopt(icmp, SOL_RAW_, ICMP_FILTER_, &got, &n));
	CHECK_EQ(got, mask);
	/* The filter takes packets of up to 24 bytes: header and 4. */
	CHECK_EQ(send(sender, "too long", 8, 0), 8);
	CHECK_EQ(send(sender, "abcd", 4, 0), 4);
	CHECK_EQ(recv(fd, b, sizeof(b), 0), 24);
	CHECK(!memcmp(b + 20, "abcd", 4), "the payload is another one");
	home.sin_addr.s_addr = htonl(INADDR_LOOPBACK + 1);
	CHECK_EQ(sendto(own, "\0", 0, 0, (struct sockaddr *)&home, sizeof(home)), 0);
	struct pollfd p = {.fd = fd, .events = POLLIN};

	CHECK_EQ(poll(&p, 1, 20), 0);
	test_pass();
}
