/* SPDX-License-Identifier: Apache-2.0 */
/* Packet sockets: bound to a device and a protocol, with a filter, options, memberships and a fan-out group.
 */
#include <arpa/inet.h>
#include <linux/filter.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>

#include "sockopt.h"

static struct sockopt options[] = {
	OPT(SOL_PACKET, PACKET_AUXDATA, 1),      OPT(SOL_PACKET, PACKET_ORIGDEV, 1),
	OPT(SOL_PACKET, PACKET_VERSION, 2),      OPT(SOL_PACKET, PACKET_RESERVE, 16),
	OPT(SOL_PACKET, PACKET_LOSS, 1),         OPT(SOL_PACKET, PACKET_TIMESTAMP, 1),
	OPT(SOL_PACKET, PACKET_QDISC_BYPASS, 1), OPT(SOL_SOCKET, SO_PRIORITY, 2),
	OPT(SOL_SOCKET, SO_RCVBUF, 60000)};

/* How many have asked for the promiscuity of a device. */
static unsigned promiscuity(int index)
{
	struct {
		struct nlmsghdr h;
		struct ifinfomsg i;
	} q = {.h = {.nlmsg_len = sizeof(q), .nlmsg_type = RTM_GETLINK, .nlmsg_flags = NLM_F_REQUEST},
	       .i = {.ifi_index = index}};
	_Alignas(struct nlmsghdr) char b[16384];
	int fd = MUST(socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE));

	MUST(send(fd, &q, sizeof(q), 0));
	MUST(recv(fd, b, sizeof(b), 0));
	close(fd);
	struct nlmsghdr *h = (struct nlmsghdr *)b;
	int left = (int)h->nlmsg_len - (int)NLMSG_LENGTH(sizeof(struct ifinfomsg));

	for (struct rtattr *a = IFLA_RTA(NLMSG_DATA(h)); RTA_OK(a, left); a = RTA_NEXT(a, left))
		if (a->rta_type == IFLA_PROMISCUITY)
			return *(unsigned *)RTA_DATA(a);
	test_fail("no promiscuity is told");
}

int main(int argc, char **argv)
{
	struct sock_filter code[] = {BPF_STMT(BPF_LD | BPF_B | BPF_ABS, 9),
				     BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, IPPROTO_UDP, 0, 1),
				     BPF_STMT(BPF_RET | BPF_K, -1), BPF_STMT(BPF_RET | BPF_K, 0)};
	struct sock_fprog program = {4, code};
	struct sockaddr_ll a = {.sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_IP)}, now;
	struct sockaddr_in to = {
		.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}, .sin_port = htons(9)};
	struct packet_mreq q = {.mr_type = PACKET_MR_PROMISC};
	uint32_t fanout = 77 | PACKET_FANOUT_HASH << 16, got = 0;
	socklen_t n = sizeof(now);
	char b[256];

	test_init(argc, argv);
	a.sll_ifindex = q.mr_ifindex = (int)if_nametoindex("lo");
	int fd = socket(AF_PACKET, SOCK_DGRAM, 0);

	if (fd < 0)
		test_skip("no packet sockets: %s", strerror(errno));
	int all = MUST(socket(AF_PACKET, SOCK_RAW, htons(ETH_P_ARP))),
	    unbound = MUST(socket(AF_PACKET, SOCK_RAW, 0));
	int fan = MUST(socket(AF_PACKET, SOCK_DGRAM, htons(ETH_P_ARP)));

	MUST(setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof(program)));
	MUST(bind(fd, (struct sockaddr *)&a, sizeof(a)));
	MUST(setsockopt(fd, SOL_PACKET, PACKET_ADD_MEMBERSHIP, &q, sizeof(q)));
	MUST(setsockopt(fd, SOL_PACKET, PACKET_ADD_MEMBERSHIP, &q, sizeof(q)));
	MUST(setsockopt(fan, SOL_PACKET, PACKET_FANOUT, &fanout, sizeof(fanout)));
	SOCKOPTS_SET(unbound, options, 7);
	test_ready();
	test_wait();
	SOCKOPTS_CHECK(unbound, options);
	MUST(getsockname(fd, (struct sockaddr *)&now, &n));
	CHECK_EQ(now.sll_ifindex, (int)if_nametoindex("lo"));
	CHECK_EQ(now.sll_protocol, htons(ETH_P_IP));
	MUST(getsockname(all, (struct sockaddr *)&now, &n));
	CHECK_EQ(now.sll_ifindex, 0);
	CHECK_EQ(now.sll_protocol, htons(ETH_P_ARP));
	n = sizeof(got);
	MUST(getsockopt(fan, SOL_PACKET, PACKET_FANOUT, &got, &n));
	CHECK_EQ(got, fanout);
	int udp = MUST(socket(AF_INET, SOCK_DGRAM, 0)), raw = MUST(socket(AF_INET, SOCK_RAW, 253));

	/* The filter lets only the second one through. */
	MUST(sendto(raw, "raw", 3, 0, (struct sockaddr *)&to, sizeof(to)));
	MUST(sendto(udp, "hello", 5, 0, (struct sockaddr *)&to, sizeof(to)));
	CHECK_EQ(recv(fd, b, sizeof(b), 0), 33);
	CHECK(!memcmp(b + 28, "hello", 5), "another packet");
	/* Twice by one socket is once for the device, until it has been given up twice. */
	int lo = (int)if_nametoindex("lo");

	q.mr_ifindex = lo;
	CHECK_EQ(promiscuity(lo), 1);
	MUST(setsockopt(fd, SOL_PACKET, PACKET_DROP_MEMBERSHIP, &q, sizeof(q)));
	CHECK_EQ(promiscuity(lo), 1);
	MUST(setsockopt(fd, SOL_PACKET, PACKET_DROP_MEMBERSHIP, &q, sizeof(q)));
	CHECK_EQ(promiscuity(lo), 0);
	test_pass();
}
