/* SPDX-License-Identifier: Apache-2.0 */
/* A datagram socket connected to a name: of a process outside of the tree, if there is one (driver.sh), else
 * its own. */
#include <sys/socket.h>
#include <sys/un.h>

#include "zdtm.h"

int main(int argc, char **argv)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};

	test_init(argc, argv);
	snprintf(a.sun_path, sizeof(a.sun_path), "%s", test_path("sink"));
	if (access(a.sun_path, F_OK) < 0)
		MUST(bind(MUST(socket(AF_UNIX, SOCK_DGRAM, 0)), (struct sockaddr *)&a, sizeof(a)));
	int fd = MUST(socket(AF_UNIX, SOCK_DGRAM, 0));

	MUST(connect(fd, (struct sockaddr *)&a, sizeof(a)));
	CHECK_EQ(send(fd, "before\n", 7, 0), 7);
	test_ready();
	test_wait();
	CHECK_EQ(send(fd, "after\n", 6, 0), 6);
	test_pass();
}
