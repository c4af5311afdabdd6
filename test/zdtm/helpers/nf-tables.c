/* SPDX-License-Identifier: Apache-2.0 */
/* Prints the names of all tables of nf_tables in this network namespace. */
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <stdio.h>
#include <sys/socket.h>

int main(void)
{
	struct {
		struct nlmsghdr h;
		struct nfgenmsg g;
	} q = {{sizeof(q), NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETTABLE, NLM_F_REQUEST | NLM_F_DUMP, 1, 0},
	       {0, NFNETLINK_V0, 0}};
	_Alignas(struct nlmsghdr) char buffer[65536];
	int sock = socket(AF_NETLINK, SOCK_RAW, NETLINK_NETFILTER);

	if (sock < 0 || send(sock, &q, sizeof(q), 0) < 0) {
		perror("nf_tables");
		return 1;
	}
	for (;;) {
		ssize_t n = recv(sock, buffer, sizeof(buffer), 0);
		if (n <= 0)
			return 1;
		long left = n; /* of a type that NLMSG_OK can compare */

		for (struct nlmsghdr *h = (struct nlmsghdr *)buffer; NLMSG_OK(h, left);
		     h = NLMSG_NEXT(h, left)) {
			if (h->nlmsg_type == NLMSG_DONE)
				return 0;
			if (h->nlmsg_type == NLMSG_ERROR)
				return 1;
			struct rtattr *a = (struct rtattr *)((char *)NLMSG_DATA(h) + sizeof(struct nfgenmsg));
			int room = (int)(h->nlmsg_len - NLMSG_LENGTH(sizeof(struct nfgenmsg)));

			for (; RTA_OK(a, room); a = RTA_NEXT(a, room))
				if ((a->rta_type & NLA_TYPE_MASK) == NFTA_TABLE_NAME)
					puts(RTA_DATA(a));
		}
	}
}
