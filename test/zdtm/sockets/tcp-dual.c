/* SPDX-License-Identifier: Apache-2.0 */
/* One IPv6 socket that takes IPv4 as well, beside one that is for IPv6 only on the same port with IPv4 taken
 * by a third. */
#include <netinet/in.h>
#include <sys/socket.h>

#include "zdtm.h"

int main(int argc, char **argv)
{
	struct sockaddr_in6 any = {.sin6_family = AF_INET6}, only = {.sin6_family = AF_INET6};
	struct sockaddr_in v4 = {.sin_family = AF_INET}, to = {.sin_family = AF_INET};
	socklen_t len = sizeof(any);
	int dual, six, four, fd, one = 1;

	test_init(argc, argv);
	dual = MUST(socket(AF_INET6, SOCK_STREAM, 0));
	MUST(bind(dual, (struct sockaddr *)&any, sizeof(any)));
	MUST(listen(dual, 3));
	MUST(getsockname(dual, (struct sockaddr *)&any, &len));
	six = MUST(socket(AF_INET6, SOCK_STREAM, 0));
	MUST(setsockopt(six, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof(one)));
	MUST(bind(six, (struct sockaddr *)&only, sizeof(only)));
	MUST(listen(six, 3));
	MUST(getsockname(six, (struct sockaddr *)&only, &len));
	v4.sin_port = only.sin6_port;
	four = MUST(socket(AF_INET, SOCK_STREAM, 0));
	MUST(bind(four, (struct sockaddr *)&v4, sizeof(v4)));
	MUST(listen(four, 3));
	test_ready();
	test_wait();
	to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	to.sin_port = any.sin6_port;
	fd = MUST(socket(AF_INET, SOCK_STREAM, 0));
	MUST(connect(fd, (struct sockaddr *)&to, sizeof(to)));
	MUST(accept(dual, NULL, NULL));
	to.sin_port = v4.sin_port;
	fd = MUST(socket(AF_INET, SOCK_STREAM, 0));
	MUST(connect(fd, (struct sockaddr *)&to, sizeof(to)));
	MUST(accept(four, NULL, NULL));
	test_pass();
}
