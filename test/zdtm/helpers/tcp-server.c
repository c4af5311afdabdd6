/* SPDX-License-Identifier: Apache-2.0 */
/* tcp-server ADDRESS PORT PIDFILE: sends back whatever comes, on any number of connections; a connection ends
 * when the peer has ended its direction and has everything back. Any other end of one ends the server (code
 * 1, with a line in PIDFILE.error). None is accepted while PIDFILE.later exists. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define ROOM 65536

struct connection {
	int fd;
	size_t from, to;
	int ended;
	char data[ROOM];
};

static char *error_file, *later_file;

static void fail(const char *what)
{
	int code = errno;
	FILE *f = fopen(error_file, "w");

	if (f) {
		fprintf(f, "server: %s: %s\n", what, strerror(code));
		fclose(f);
	}
	exit(1);
}

static void serve(struct connection *c)
{
	for (;;) {
		if (c->from == c->to && !c->ended) {
			ssize_t n = recv(c->fd, c->data, ROOM, MSG_DONTWAIT);

			if (n < 0 && errno == EAGAIN)
				return;
			if (n < 0)
				fail("recv");
			c->from = 0;
			c->to = (size_t)n;
			c->ended = n == 0;
		}
		if (c->from == c->to) {
			close(c->fd);
			free(c);
			return;
		}
		ssize_t n = send(c->fd, c->data + c->from, c->to - c->from, MSG_DONTWAIT | MSG_NOSIGNAL);

		if (n < 0 && errno == EAGAIN)
			return;
		if (n < 0)
			fail("send");
		c->from += (size_t)n;
	}
}

static void take(int epoll, int listener)
{
	struct connection *c = calloc(1, sizeof(*c));
	struct epoll_event e = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.ptr = c};

	c->fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
	if (c->fd < 0)
		fail("accept");
	if (epoll_ctl(epoll, EPOLL_CTL_ADD, c->fd, &e) < 0)
		fail("epoll_ctl");
	serve(c);
}

int main(int argc, char **argv)
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICHOST}, *a;
	int one = 1;

	if (argc != 4)
		return 2;
	close_range(3, ~0u, 0);
	asprintf(&error_file, "%s.error", argv[3]);
	asprintf(&later_file, "%s.later", argv[3]);
	if (getaddrinfo(argv[1], argv[2], &hints, &a))
		return 2;
	int listener = socket(a->ai_family, SOCK_STREAM, 0), epoll = epoll_create1(0);
	struct epoll_event e = {.events = EPOLLIN}, ready[64];

	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(listener, a->ai_addr, a->ai_addrlen) < 0 || listen(listener, 100) < 0 ||
	    epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &e) < 0)
		fail("listen");
	FILE *f = fopen(argv[3], "w");

	if (!f)
		return 2;
	fprintf(f, "%d\n", getpid());
	fclose(f);
	for (;;) {
		int n = epoll_wait(epoll, ready, 64, -1);

		if (n < 0 && errno != EINTR)
			fail("epoll_wait");
		for (int i = 0; i < n; i++)
			if (ready[i].data.ptr)
				serve(ready[i].data.ptr);
			else if (access(later_file, F_OK) == 0)
				usleep(2000);
			else
				take(epoll, listener);
	}
}
