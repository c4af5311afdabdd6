/* SPDX-License-Identifier: Apache-2.0 */
#include <linux/netlink.h>
#include <sys/socket.h>

#include "zdtm.h"

int main(int argc, char **argv)
{
	test_init(argc, argv);
	if (socket(AF_NETLINK, SOCK_RAW, NETLINK_NETFILTER) < 0)
		test_skip("no netfilter: %s", strerror(errno));
	test_ready();
	test_wait();
	test_pass();
}
