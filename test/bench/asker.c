/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The two ends of a TCP connection, one of which is moved:
 *   bench-asker serve ADDRESS PORT          sends back what comes, one connection after the other
 *   bench-asker ask ADDRESS PORT one|many   asks every millisecond until SIGTERM; one: only if the last
 * request was answered A request is eight bytes, its number. The end of `ask` prints a line "asked=N
 * answered=N wrong=N"; each SIGUSR1 one about the time since the last: "longest_ms=... at_ms=...", the
 * longest that a request waited for its answer and when that was asked (CLOCK_MONOTONIC).
 */
#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "stats.h"

#define MAX_AHEAD 65536 /* requests without an answer */

static volatile sig_atomic_t enough, tell;

static void on_signal(int sig)
{
	if (sig == SIGTERM)
		enough = 1;
	else
		tell = 1;
}

static int fail(const char *what)
{
	fprintf(stderr, "bench-asker: %s: %s\n", what, strerror(errno));
	return 1;
}

static int serve(const struct addrinfo *a)
{
	int one = 1, listener = socket(a->ai_family, SOCK_STREAM, 0);
	char data[65536];

	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(listener, a->ai_addr, a->ai_addrlen) < 0 || listen(listener, 8) < 0)
		return fail("listen");
	for (;;) {
		int fd = accept(listener, NULL, NULL);
		ssize_t n;

		if (fd < 0)
			return fail("accept");
		while ((n = recv(fd, data, sizeof(data), 0)) > 0)
			if (send(fd, data, (size_t)n, MSG_NOSIGNAL) != n)
				return fail("send");
		if (n < 0)
			return fail("recv");
		close(fd);
	}
}

static struct {
	uint64_t asked, answered, wrong;
	uint64_t at[MAX_AHEAD]; /* when asked, by number */
	uint64_t longest, longest_at;
	unsigned char part[8];
	size_t n_part;
} c;

static void take(const unsigned char *data, size_t n)
{
	uint64_t now = now_ns(), number;

	for (size_t i = 0; i < n; i++) {
		c.part[c.n_part++] = data[i];
		if (c.n_part < sizeof(c.part))
			continue;
		c.n_part = 0;
		memcpy(&number, c.part, sizeof(number));
		c.wrong += number != c.answered;
		uint64_t at = c.at[c.answered++ % MAX_AHEAD];

		if (now - at > c.longest) {
			c.longest = now - at;
			c.longest_at = at;
		}
	}
}

static int say(int fd)
{
	uint64_t number = c.asked;

	c.at[number % MAX_AHEAD] = now_ns();
	ssize_t n = send(fd, &number, sizeof(number), MSG_NOSIGNAL);

	c.asked++;
	return n == sizeof(number) ? 0 : -1;
}

static int ask(const struct addrinfo *a, bool one)
{
	int fd = socket(a->ai_family, SOCK_STREAM, 0), timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK),
	    yes = 1;
	struct itimerspec every = {{0, 1000000}, {0, 1000000}};
	struct sigaction act = {.sa_handler = on_signal};
	unsigned char data[65536];
	uint64_t ticks;

	sigaction(SIGTERM, &act, NULL);
	sigaction(SIGUSR1, &act, NULL);
	if (connect(fd, a->ai_addr, a->ai_addrlen) < 0)
		return fail("connect");
	setsockopt(fd, IPPROTO_TCP, 1 /* TCP_NODELAY */, &yes, sizeof(yes));
	timerfd_settime(timer, 0, &every, NULL);
	while (!enough || c.answered < c.asked) {
		struct pollfd p[] = {{.fd = fd, .events = POLLIN}, {.fd = timer, .events = POLLIN}};

		if (tell) {
			tell = 0;
			printf("longest_ms=%.3f at_ms=%.3f asked=%llu\n", (double)c.longest / 1e6,
			       (double)c.longest_at / 1e6, (unsigned long long)c.asked);
			fflush(stdout);
			c.longest = 0;
		}
		if (poll(p, 2, 20000) == 0)
			return fail("no answer for 20 s");
		if (p[0].revents) {
			ssize_t n = recv(fd, data, sizeof(data), MSG_DONTWAIT);

			if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
				return fail("recv");
			take(data, n > 0 ? (size_t)n : 0);
		}
		if (p[1].revents && read(timer, &ticks, sizeof(ticks)) > 0 && !enough &&
		    c.asked - c.answered < (one ? 1 : MAX_AHEAD) && say(fd) < 0)
			return fail("send");
	}
	printf("asked=%llu answered=%llu wrong=%llu\n", (unsigned long long)c.asked,
	       (unsigned long long)c.answered, (unsigned long long)c.wrong);
	return 0;
}

int main(int argc, char **argv)
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICHOST}, *a;

	if (argc < 4 || getaddrinfo(argv[2], argv[3], &hints, &a)) {
		fprintf(stderr, "bench-asker serve ADDRESS PORT | ask ADDRESS PORT one|many\n");
		return 2;
	}
	return argv[1][0] == 's' ? serve(a) : ask(a, argc > 4 && !strcmp(argv[4], "one"));
}
