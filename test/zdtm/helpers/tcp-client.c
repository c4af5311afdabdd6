/* SPDX-License-Identifier: Apache-2.0 */
/* tcp-client ADDRESS PORT CONNECTIONS FILE: talks to tcp-server until FILE.stop exists. Half of the
 * connections stream, the others send a request when the last one was answered. All that comes back is
 * checked. FILE gets one line: "ok BYTES REQUESTS LONGEST", the longest time a request waited for its answer
 * in ms, or what went wrong. */
#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define REQUEST 100
#define CHUNK   4096
#define AHEAD   (256 << 10) /* bytes of a stream on their way */

struct connection {
	int fd, stream, ended;
	uint64_t sent, got, asked;
};

static const char *file;
static uint64_t requests, longest;

static uint64_t now_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

static void report(const char *text)
{
	char part[4096];

	snprintf(part, sizeof(part), "%s.part", file);
	FILE *f = fopen(part, "w");

	if (f) {
		fprintf(f, "%s\n", text);
		fclose(f);
		rename(part, file);
	}
}

static void fail(int i, const char *what, int code)
{
	char text[256];

	snprintf(text, sizeof(text), "client: connection %d: %s%s%s", i, what, code ? ": " : "",
		 code ? strerror(code) : "");
	report(text);
	exit(1);
}

/* Byte @at of connection @i. */
static uint8_t pattern(int i, uint64_t at)
{
	uint64_t x = (at >> 3) * 0x9e3779b97f4a7c15u + (uint64_t)i * 0xbf58476d1ce4e5b9u;

	x ^= x >> 29;
	return (uint8_t)(x >> (at & 7) * 8);
}

static void say(struct connection *c, int i, size_t want)
{
	uint8_t data[CHUNK];

	for (size_t k = 0; k < want; k++)
		data[k] = pattern(i, c->sent + k);
	ssize_t n = send(c->fd, data, want, MSG_DONTWAIT | MSG_NOSIGNAL);

	if (n < 0 && errno != EAGAIN)
		fail(i, "send", errno);
	if (n > 0)
		c->sent += (uint64_t)n;
}

static void hear(struct connection *c, int i)
{
	static uint8_t data[65536];
	ssize_t n;

	while ((n = recv(c->fd, data, sizeof(data), MSG_DONTWAIT)) > 0) {
		for (ssize_t k = 0; k < n; k++)
			if (data[k] != pattern(i, c->got + (uint64_t)k))
				fail(i, "wrong data came back", 0);
		c->got += (uint64_t)n;
	}
	if (n < 0 && errno != EAGAIN)
		fail(i, "recv", errno);
	if (n == 0 && !c->ended)
		fail(i, "ended too early", 0);
	if (n == 0 && c->got != c->sent)
		fail(i, "ended without all data", 0);
	if (n == 0)
		c->ended = 2;
	if (c->asked && c->got == c->sent) {
		uint64_t t = now_us() - c->asked;

		longest = t > longest ? t : longest;
		requests++;
		c->asked = 0;
	}
}

static void step(struct connection *c, int i, int stop)
{
	hear(c, i);
	if (c->ended)
		return;
	if (stop && c->got == c->sent) {
		c->ended = 1;
		if (shutdown(c->fd, SHUT_WR) < 0)
			fail(i, "shutdown", errno);
	} else if (!stop && c->stream && c->sent - c->got < AHEAD) {
		say(c, i, CHUNK);
	} else if (!stop && !c->stream && c->sent == c->got) {
		c->asked = now_us();
		say(c, i, REQUEST);
	}
}

int main(int argc, char **argv)
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICHOST}, *a;
	char stop_file[4096], text[256];

	if (argc != 5 || getaddrinfo(argv[1], argv[2], &hints, &a))
		return 2;
	file = argv[4];
	snprintf(stop_file, sizeof(stop_file), "%s.stop", file);
	int n = atoi(argv[3]), left = n, stop = 0;
	struct connection *all = calloc((size_t)n, sizeof(*all));
	uint64_t bytes = 0, deadline = 0;

	for (int i = 0; i < n; i++) {
		all[i] = (struct connection){.fd = socket(a->ai_family, SOCK_STREAM, 0), .stream = i & 1};
		if (connect(all[i].fd, a->ai_addr, a->ai_addrlen) < 0)
			fail(i, "connect", errno);
	}
	snprintf(text, sizeof(text), "connected");
	report(text);
	while (left) {
		/* At a modest rate: the machine has other things to do. */
		usleep(2000);
		if (!stop && access(stop_file, F_OK) == 0) {
			stop = 1;
			deadline = now_us() + 60000000;
		}
		if (stop && now_us() > deadline)
			fail(0, "not all data came back within 60 s", 0);
		left = 0;
		for (int i = 0; i < n; i++) {
			if (all[i].ended == 2)
				continue;
			step(&all[i], i, stop);
			left++;
		}
	}
	for (int i = 0; i < n; i++)
		bytes += all[i].got;
	snprintf(text, sizeof(text), "ok %llu %llu %llu", (unsigned long long)bytes,
		 (unsigned long long)requests, (unsigned long long)longest / 1000);
	report(text);
	return 0;
}
