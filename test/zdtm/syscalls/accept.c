/* SPDX-License-Identifier: Apache-2.0 */
/* accept and recvfrom that wait. */
#include <netinet/in.h>
#include <pthread.h>
#include <sys/socket.h>

#include "zdtm.h"

static int listener, udp;

static void *acceptor(void *arg)
{
	char c;
	int fd = MUST(accept(listener, NULL, NULL));

	CHECK(!test_waiting(), "accept came back early");
	CHECK_EQ(read(fd, &c, 1), 1);
	CHECK_EQ(c, 'x');
	close(fd);
	return arg;
}

static void *receiver(void *arg)
{
	char c;

	CHECK_EQ(recv(udp, &c, 1, 0), 1);
	CHECK(!test_waiting(), "recv came back early");
	return arg;
}

static void address_of(int fd, struct sockaddr_in *a)
{
	socklen_t len = sizeof(*a);

	a->sin_family = AF_INET;
	a->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	MUST(bind(fd, (struct sockaddr *)a, sizeof(*a)));
	MUST(getsockname(fd, (struct sockaddr *)a, &len));
}

int main(int argc, char **argv)
{
	struct sockaddr_in a = {0}, b = {0};
	pthread_t t[2];
	int fd;

	test_init(argc, argv);
	listener = MUST(socket(AF_INET, SOCK_STREAM, 0));
	address_of(listener, &a);
	MUST(listen(listener, 5));
	udp = MUST(socket(AF_INET, SOCK_DGRAM, 0));
	address_of(udp, &b);
	MUST0(pthread_create(&t[0], NULL, acceptor, NULL));
	MUST0(pthread_create(&t[1], NULL, receiver, NULL));
	test_sleep_ms(20);
	test_ready();
	test_wait();
	fd = MUST(socket(AF_INET, SOCK_STREAM, 0));
	MUST(connect(fd, (struct sockaddr *)&a, sizeof(a)));
	CHECK_EQ(write(fd, "x", 1), 1);
	CHECK_EQ(sendto(udp, "y", 1, 0, (struct sockaddr *)&b, sizeof(b)), 1);
	for (int i = 0; i < 2; i++)
		MUST0(pthread_join(t[i], NULL));
	test_pass();
}
