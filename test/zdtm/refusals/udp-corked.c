/* SPDX-License-Identifier: Apache-2.0 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "zdtm.h"

int main(int argc, char **argv)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
	socklen_t n = sizeof(a);
	char b[16];

	test_init(argc, argv);
	int server = MUST(socket(AF_INET, SOCK_DGRAM, 0)), fd = MUST(socket(AF_INET, SOCK_DGRAM, 0));

	MUST(bind(server, (struct sockaddr *)&a, sizeof(a)));
	MUST(getsockname(server, (struct sockaddr *)&a, &n));
	MUST(connect(fd, (struct sockaddr *)&a, sizeof(a)));
	CHECK_EQ(send(fd, "half", 4, MSG_MORE), 4);
	test_ready();
	test_wait();
	CHECK_EQ(send(fd, "whole", 5, 0), 5);
	CHECK_EQ(recv(server, b, sizeof(b), 0), 9);
	CHECK(!memcmp(b, "halfwhole", 9), "another datagram");
	test_pass();
}
