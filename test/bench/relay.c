/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A long way between two hosts, for kernels without netem: passes TCP connections on, and each byte comes out
 * so long after it came in, whatever its neighbours do.  The rate is not limited: what shapes the link lies
 * before or behind it. To set a connection up costs a way there and back, as it would.
 *
 *   bench-relay MS LISTEN-ADDR PORT TO-ADDR PORT    MS: one way
 *
 * Put it on the side of the receiver: what cannot be passed on fills its buffers, which a long way does not
 * have.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define CONNECTIONS 256
#define PIECE       65536
#define ON_THE_WAY  (32u << 20) /* bytes in one direction; beyond that nothing is read */

struct piece {
	struct piece *next;
	uint64_t due;
	size_t n, at; /* n 0: the end of the stream */
	char data[];
};

struct way {
	struct piece *first, **last;
	size_t bytes;
	bool read_all, ended;
};

struct connection {
	int fd[2];       /* -1: free; 0: who connected, 1: who is connected to */
	struct way w[2]; /* from fd[i] to fd[!i] */
};

static struct connection all[CONNECTIONS];
static uint64_t delay;

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static void die(const char *what)
{
	fprintf(stderr, "bench-relay: %s: %s\n", what, strerror(errno));
	exit(1);
}

static struct sockaddr_in address(const char *host, const char *port)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port))};

	errno = EINVAL;
	if (inet_pton(AF_INET, host, &a.sin_addr) != 1)
		die(host);
	return a;
}

static void drop(struct connection *c)
{
	for (int i = 0; i < 2; i++) {
		if (c->fd[i] >= 0)
			close(c->fd[i]);
		c->fd[i] = -1;
		for (struct piece *p = c->w[i].first, *next; p; p = next) {
			next = p->next;
			free(p);
		}
		c->w[i] = (struct way){0};
	}
}

static void take_one(int listener, const struct sockaddr_in *to)
{
	int one = 1, in = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	int out = in < 0 ? -1 : socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct connection *c = all;

	while (c < all + CONNECTIONS && c->fd[0] >= 0)
		c++;
	if (out < 0 || c == all + CONNECTIONS || connect(out, (const struct sockaddr *)to, sizeof(*to)) < 0) {
		if (in >= 0)
			close(in);
		if (out >= 0)
			close(out);
		return;
	}
	fcntl(out, F_SETFL, O_NONBLOCK);
	setsockopt(in, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	setsockopt(out, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	*c = (struct connection){.fd = {in, out}};
	for (int i = 0; i < 2; i++)
		c->w[i].last = &c->w[i].first;
}

/* Returns false when the connection is broken. */
static bool take_in(struct connection *c, int i, uint64_t now)
{
	struct way *w = &c->w[i];
	struct piece *p = malloc(sizeof(*p) + PIECE);

	if (!p)
		die("no memory");
	ssize_t n = recv(c->fd[i], p->data, PIECE, 0);

	if (n < 0) {
		free(p);
		return errno == EAGAIN || errno == EINTR;
	}
	p->next = NULL;
	p->n = (size_t)n;
	p->at = 0;
	p->due = now + delay;
	*w->last = p;
	w->last = &p->next;
	w->bytes += (size_t)n;
	w->read_all = n == 0;
	return true;
}

static bool is_due(const struct way *w, uint64_t now)
{
	return w->first && w->first->due <= now;
}

static bool give_out(struct connection *c, int i, uint64_t now)
{
	struct way *w = &c->w[i];

	while (is_due(w, now)) {
		struct piece *p = w->first;
		ssize_t n = p->n ? send(c->fd[!i], p->data + p->at, p->n - p->at, MSG_NOSIGNAL) : 0;

		if (n < 0)
			return errno == EAGAIN || errno == EINTR;
		p->at += (size_t)n;
		w->bytes -= (size_t)n;
		if (p->at < p->n)
			return true;
		if (!p->n) {
			w->ended = true;
			shutdown(c->fd[!i], SHUT_WR);
		}
		w->first = p->next;
		if (!w->first)
			w->last = &w->first;
		free(p);
	}
	return true;
}

static void serve(struct connection *c, const struct pollfd *p, uint64_t now)
{
	bool good = true;

	for (int i = 0; i < 2 && good; i++) {
		if (p[i].revents & (POLLIN | POLLHUP | POLLERR) && !c->w[i].read_all)
			good = take_in(c, i, now);
		if (good && is_due(&c->w[i], now))
			good = give_out(c, i, now);
	}
	if (!good || (c->w[0].ended && c->w[1].ended))
		drop(c);
}

/* What is asked of poll for fd[i]; 0: nothing. The next time something is due goes to *next. */
static short wanted(const struct connection *c, int i, uint64_t now, uint64_t *next)
{
	const struct way *from = &c->w[i], *to = &c->w[!i];
	short events = 0;

	if (!from->read_all && from->bytes < ON_THE_WAY)
		events |= POLLIN;
	if (is_due(to, now))
		events |= POLLOUT;
	else if (to->first && to->first->due < *next)
		*next = to->first->due;
	return events;
}

static void once(int listener, const struct sockaddr_in *to)
{
	struct pollfd p[1 + 2 * CONNECTIONS] = {{listener, POLLIN, 0}};
	uint64_t now = now_ns(), next = UINT64_MAX;

	for (size_t k = 0; k < CONNECTIONS; k++)
		for (int i = 0; i < 2; i++) {
			short events = all[k].fd[i] < 0 ? 0 : wanted(&all[k], i, now, &next);

			p[1 + 2 * k + (size_t)i] = (struct pollfd){events ? all[k].fd[i] : -1, events, 0};
		}
	uint64_t left = next > now ? next - now : 0;
	struct timespec wait = {(time_t)(left / 1000000000), (long)(left % 1000000000)};

	if (ppoll(p, 1 + 2 * CONNECTIONS, next == UINT64_MAX ? NULL : &wait, NULL) < 0 && errno != EINTR)
		die("poll");
	now = now_ns();
	for (size_t k = 0; k < CONNECTIONS; k++)
		if (all[k].fd[0] >= 0)
			serve(&all[k], &p[1 + 2 * k], now);
	if (p[0].revents)
		take_one(listener, to);
}

int main(int argc, char **argv)
{
	int one = 1, listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (argc != 6) {
		fprintf(stderr, "usage: bench-relay MS LISTEN-ADDR PORT TO-ADDR PORT\n");
		return 2;
	}
	delay = (uint64_t)(atof(argv[1]) * 1e6);
	struct sockaddr_in at = address(argv[2], argv[3]), to = address(argv[4], argv[5]);

	for (size_t i = 0; i < CONNECTIONS; i++)
		all[i].fd[0] = all[i].fd[1] = -1;
	prctl(PR_SET_TIMERSLACK, 1000);
	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (listener < 0 || bind(listener, (struct sockaddr *)&at, sizeof(at)) < 0 ||
	    listen(listener, 64) < 0)
		die("listen");
	for (;;)
		once(listener, &to);
}
