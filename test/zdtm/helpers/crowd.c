/* SPDX-License-Identifier: Apache-2.0 */
/*
 * crowd ADDRESS PORT N: makes N connections and says nothing on them; prints "ready", and holds them (and
 * makes those again that are closed) until it is killed.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

static struct sockaddr_in address = {.sin_family = AF_INET};

static int dial(void)
{
	int s = socket(AF_INET, SOCK_STREAM, 0);

	if (s >= 0 && connect(s, (struct sockaddr *)&address, sizeof(address)) == 0)
		return s;
	perror("connect");
	exit(1);
}

int main(int argc, char **argv)
{
	long n = argc == 4 ? atol(argv[3]) : 0;
	struct rlimit limit;
	struct pollfd *all;

	if (n <= 0 || inet_pton(AF_INET, argv[1], &address.sin_addr) != 1)
		return 2;
	address.sin_port = htons(atoi(argv[2]));
	getrlimit(RLIMIT_NOFILE, &limit);
	limit.rlim_cur = limit.rlim_max;
	setrlimit(RLIMIT_NOFILE, &limit);
	all = calloc((size_t)n, sizeof(*all));
	for (long i = 0; i < n; i++)
		all[i] = (struct pollfd){.fd = dial(), .events = POLLIN | POLLRDHUP};
	puts("ready");
	fflush(stdout);
	for (;;) {
		poll(all, (nfds_t)n, -1);
		for (long i = 0; i < n; i++) {
			if (!all[i].revents)
				continue;
			close(all[i].fd);
			all[i].fd = dial();
			all[i].revents = 0;
		}
		usleep(10000);
	}
}
