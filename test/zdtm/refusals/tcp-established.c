/* SPDX-License-Identifier: Apache-2.0 */
#include <netinet/in.h>
#include <sys/socket.h>

#include "zdtm.h"

int main(int argc, char **argv)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
	socklen_t len = sizeof(a);
	int listener, peer, fd;
	char c;

	test_init(argc, argv);
	listener = MUST(socket(AF_INET, SOCK_STREAM, 0));
	MUST(bind(listener, (struct sockaddr *)&a, sizeof(a)));
	MUST(listen(listener, 1));
	MUST(getsockname(listener, (struct sockaddr *)&a, &len));
	fd = MUST(socket(AF_INET, SOCK_STREAM, 0));
	MUST(connect(fd, (struct sockaddr *)&a, sizeof(a)));
	peer = MUST(accept(listener, NULL, NULL));
	test_ready();
	test_wait();
	CHECK_EQ(write(peer, "x", 1), 1);
	CHECK_EQ(read(fd, &c, 1), 1);
	CHECK_EQ(write(fd, "y", 1), 1);
	CHECK_EQ(read(peer, &c, 1), 1);
	test_pass();
}
