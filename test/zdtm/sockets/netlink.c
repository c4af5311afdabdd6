/* SPDX-License-Identifier: Apache-2.0 */
/* Netlink sockets: their port, groups and options, and whether they still get answers and news. */
#include <linux/fib_rules.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <poll.h>

#include "sockopt.h"

#define SOL_NETLINK_ 270

static struct sockopt options[] = {
	OPT(SOL_NETLINK_, NETLINK_PKTINFO, 1),    OPT(SOL_NETLINK_, NETLINK_BROADCAST_ERROR, 1),
	OPT(SOL_NETLINK_, NETLINK_NO_ENOBUFS, 1), OPT(SOL_NETLINK_, NETLINK_CAP_ACK, 1),
	OPT(SOL_NETLINK_, NETLINK_EXT_ACK, 1),    OPT(SOL_NETLINK_, NETLINK_GET_STRICT_CHK, 1)};

static uint32_t port(int fd)
{
	struct sockaddr_nl a;
	socklen_t n = sizeof(a);

	MUST(getsockname(fd, (struct sockaddr *)&a, &n));
	return a.nl_pid;
}

static void ask_links(int fd)
{
	struct {
		struct nlmsghdr h;
		struct ifinfomsg i;
	} q = {.h = {.nlmsg_len = sizeof(q),
		     .nlmsg_type = RTM_GETLINK,
		     .nlmsg_flags = NLM_F_REQUEST,
		     .nlmsg_seq = 5},
	       .i = {.ifi_index = (int)if_nametoindex("lo")}};
	char b[8192];

	CHECK_EQ(send(fd, &q, sizeof(q), 0), sizeof(q));
	ssize_t n = MUST(recv(fd, b, sizeof(b), 0));
	const struct nlmsghdr *h = (const struct nlmsghdr *)b;

	CHECK(NLMSG_OK(h, (size_t)n) && h->nlmsg_type == RTM_NEWLINK && h->nlmsg_seq == 5,
	      "the answer is of type %u", h->nlmsg_type);
	CHECK_EQ(h->nlmsg_pid, port(fd));
}

/* A routing rule comes or goes: news for the group. */
static void rule(int type)
{
	struct {
		struct nlmsghdr h;
		struct fib_rule_hdr r;
		struct rtattr a;
		uint32_t priority;
	} q = {.h = {.nlmsg_len = sizeof(q),
		     .nlmsg_type = type,
		     .nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK |
				    (type == RTM_NEWRULE ? NLM_F_CREATE | NLM_F_EXCL : 0)},
	       .r = {.family = AF_INET, .table = RT_TABLE_MAIN, .action = FR_ACT_TO_TBL},
	       .a = {.rta_len = RTA_LENGTH(4), .rta_type = FRA_PRIORITY},
	       .priority = 4711};
	_Alignas(struct nlmsghdr) char b[1024];
	int fd = MUST(socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE));

	MUST(send(fd, &q, sizeof(q), 0));
	MUST(recv(fd, b, sizeof(b), 0));
	CHECK_EQ(((struct nlmsgerr *)NLMSG_DATA((struct nlmsghdr *)b))->error, 0);
	close(fd);
}

int main(int argc, char **argv)
{
	struct sockaddr_nl a = {.nl_family = AF_NETLINK, .nl_pid = 987654}, any = {.nl_family = AF_NETLINK};
	uint32_t group = RTNLGRP_IPV4_RULE, groups[8] = {0};
	socklen_t n = sizeof(groups);

	test_init(argc, argv);
	int fd = MUST(socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE)),
	    news = MUST(socket(AF_NETLINK, SOCK_DGRAM, NETLINK_ROUTE));
	int fresh = MUST(socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE)),
	    uevent = socket(AF_NETLINK, SOCK_RAW, NETLINK_KOBJECT_UEVENT);

	MUST(bind(fd, (struct sockaddr *)&a, sizeof(a)));
	MUST(bind(news, (struct sockaddr *)&any, sizeof(any)));
	MUST(setsockopt(news, SOL_NETLINK_, NETLINK_ADD_MEMBERSHIP, &group, sizeof(group)));
	any.nl_groups = 2; /* not what the kernel itself sends */
	if (uevent >= 0)
		MUST(bind(uevent, (struct sockaddr *)&any, sizeof(any)));
	SOCKOPTS_SET(fresh, options, 4);
	ask_links(fd);
	uint32_t mine = port(news);

	test_ready();
	test_wait();
	SOCKOPTS_CHECK(fresh, options);
	CHECK_EQ(port(fd), 987654);
	CHECK_EQ(port(news), mine);
	ask_links(fd);
	MUST(getsockopt(news, SOL_NETLINK_, NETLINK_LIST_MEMBERSHIPS, groups, &n));
	CHECK_EQ(groups[0], 1u << (RTNLGRP_IPV4_RULE - 1));
	struct pollfd p = {.fd = news, .events = POLLIN};

	rule(RTM_NEWRULE);
	CHECK_EQ(poll(&p, 1, 5000), 1);
	rule(RTM_DELRULE);
	test_pass();
}
