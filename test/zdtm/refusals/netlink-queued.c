/* SPDX-License-Identifier: Apache-2.0 */
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <sys/socket.h>

#include "zdtm.h"

int main(int argc, char **argv)
{
	struct {
		struct nlmsghdr h;
		struct ifinfomsg i;
	} q = {.h = {.nlmsg_len = sizeof(q), .nlmsg_type = RTM_GETLINK, .nlmsg_flags = NLM_F_REQUEST},
	       .i = {.ifi_index = 1}};
	char b[8192];

	test_init(argc, argv);
	int fd = MUST(socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE));

	CHECK_EQ(send(fd, &q, sizeof(q), 0), sizeof(q));
	test_ready();
	test_wait();
	CHECK(recv(fd, b, sizeof(b), MSG_DONTWAIT) > 100, "the answer is gone");
	test_pass();
}
