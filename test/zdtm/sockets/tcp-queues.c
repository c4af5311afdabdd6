/* SPDX-License-Identifier: Apache-2.0 */
/* TCP connections between two processes of the tree: idle, with data on its way in every queue, half-closed,
 * with options; afterwards everything arrives, once and in order, and both directions go on. */
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>

#include "zdtm.h"

#ifndef FAMILY
#define FAMILY AF_INET
#endif

enum { IDLE, UNREAD, FULL, HALF, HALF_READ, OPTIONS, PAIRS };

#define UNREAD_BYTES 10000
#define FULL_MAX     (32 << 20)

static struct pair {
	int near, far; /* of the parent; of the child */
} pairs[PAIRS];
static size_t full_bytes;

static union {
	struct sockaddr sa;
	struct sockaddr_in v4;
	struct sockaddr_in6 v6;
} address;

static void set(int fd, int level, int name, int v)
{
	MUST(setsockopt(fd, level, name, &v, sizeof(v)));
}

static int get(int fd, int level, int name)
{
	int v = -1;
	socklen_t n = sizeof(v);

	MUST(getsockopt(fd, level, name, &v, &n));
	return v;
}

static int state_of(int fd)
{
	struct tcp_info i;
	socklen_t n = sizeof(i);

	MUST(getsockopt(fd, IPPROTO_TCP, TCP_INFO, &i, &n));
	return i.tcpi_state;
}

static void send_pattern(int fd, size_t n, uint64_t seed)
{
	char *data = malloc(n);

	test_fill(data, n, seed);
	CHECK_EQ(send(fd, data, n, 0), n);
	free(data);
}

static void read_pattern(int fd, size_t n, uint64_t seed, const char *what)
{
	char *data = malloc(n);

	for (size_t got = 0; got < n;) {
		struct pollfd p = {.fd = fd, .events = POLLIN};

		CHECK(poll(&p, 1, 20000) == 1, "%s: nothing more after %zu of %zu bytes", what, got, n);
		ssize_t r = recv(fd, data + got, n - got, MSG_DONTWAIT);

		CHECK(r > 0, "%s: read %zd after %zu of %zu bytes", what, r, got, n);
		got += (size_t)r;
	}
	test_check_fill(data, n, seed, what);
	free(data);
}

static void expect_end(int fd, const char *what)
{
	char c;

	CHECK(recv(fd, &c, 1, 0) == 0, "%s: no end", what);
}

static void echo(int a, int b, const char *what)
{
	send_pattern(a, 700, 1);
	read_pattern(b, 700, 1, what);
	send_pattern(b, 900, 2);
	read_pattern(a, 900, 2, what);
}

static void setup(void)
{
	socklen_t n = FAMILY == AF_INET ? sizeof(address.v4) : sizeof(address.v6);
	int listener = MUST(socket(FAMILY, SOCK_STREAM, 0));

	address.sa.sa_family = FAMILY;
	if (FAMILY == AF_INET)
		address.v4.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	else
		address.v6.sin6_addr = in6addr_loopback;
	set(listener, SOL_SOCKET, SO_REUSEADDR, 1);
	MUST(bind(listener, &address.sa, n));
	MUST(listen(listener, PAIRS));
	MUST(getsockname(listener, &address.sa, &n));
	for (int i = 0; i < PAIRS; i++) {
		pairs[i].near = MUST(socket(FAMILY, SOCK_STREAM, 0));
		MUST(connect(pairs[i].near, &address.sa, n));
		pairs[i].far = MUST(accept(listener, NULL, NULL));
	}
}

static void fill(int fd)
{
	char *data = malloc(FULL_MAX);
	ssize_t r;

	test_fill(data, FULL_MAX, 5);
	while ((r = send(fd, data + full_bytes, 65536, MSG_DONTWAIT)) > 0 && full_bytes < FULL_MAX - 65536)
		full_bytes += (size_t)r;
	CHECK(r < 0 && errno == EAGAIN, "the connection does not become full");
	free(data);
}

static void prepare(void)
{
	struct linger l = {1, 7};

	echo(pairs[IDLE].near, pairs[IDLE].far, "before");
	send_pattern(pairs[UNREAD].near, UNREAD_BYTES, 3);
	send_pattern(pairs[UNREAD].far, UNREAD_BYTES / 2, 4);
	fill(pairs[FULL].near);
	send_pattern(pairs[HALF].near, 3000, 6);
	MUST(shutdown(pairs[HALF].near, SHUT_WR));
	send_pattern(pairs[HALF_READ].near, 10, 7);
	MUST(shutdown(pairs[HALF_READ].near, SHUT_WR));
	read_pattern(pairs[HALF_READ].far, 10, 7, "before");
	expect_end(pairs[HALF_READ].far, "before");
	int fd = pairs[OPTIONS].near;

	set(fd, IPPROTO_TCP, TCP_NODELAY, 1);
	set(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
	set(fd, IPPROTO_TCP, TCP_KEEPIDLE, 77);
	set(fd, IPPROTO_TCP, TCP_KEEPINTVL, 11);
	set(fd, IPPROTO_TCP, TCP_KEEPCNT, 4);
	set(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, 12345);
	set(fd, SOL_SOCKET, SO_SNDBUF, 50000);
	set(fd, SOL_SOCKET, SO_RCVBUF, 60000);
	set(fd, SOL_SOCKET, SO_REUSEADDR, 1);
	MUST(setsockopt(fd, SOL_SOCKET, SO_LINGER, &l, sizeof(l)));
	MUST(setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, "reno", 4));
}

struct seen {
	int keepidle, interval, count, timeout, sndbuf, rcvbuf, mss, scale;
	uint16_t port, peer;
};

static void look(int fd, struct seen *ret)
{
	struct tcp_info i;
	struct sockaddr_in6 here, there;
	socklen_t n = sizeof(i), h = sizeof(here), t = sizeof(there);

	memset(ret, 0, sizeof(*ret));
	MUST(getsockopt(fd, IPPROTO_TCP, TCP_INFO, &i, &n));
	MUST(getsockname(fd, (struct sockaddr *)&here, &h));
	MUST(getpeername(fd, (struct sockaddr *)&there, &t));
	*ret = (struct seen){.keepidle = get(fd, IPPROTO_TCP, TCP_KEEPIDLE),
			     .interval = get(fd, IPPROTO_TCP, TCP_KEEPINTVL),
			     .count = get(fd, IPPROTO_TCP, TCP_KEEPCNT),
			     .timeout = get(fd, IPPROTO_TCP, TCP_USER_TIMEOUT),
			     .sndbuf = get(fd, SOL_SOCKET, SO_SNDBUF),
			     .rcvbuf = get(fd, SOL_SOCKET, SO_RCVBUF),
			     .scale = i.tcpi_snd_wscale << 8 | i.tcpi_rcv_wscale,
			     .mss = i.tcpi_options,
			     .port = here.sin6_port,
			     .peer = there.sin6_port};
}

static void check_options(int fd, const struct seen *before)
{
	struct seen now;
	struct linger l;
	socklen_t n = sizeof(l);
	char name[16] = "";

	look(fd, &now);
	CHECK_EQ(now.keepidle, 77);
	CHECK_EQ(now.interval, 11);
	CHECK_EQ(now.count, 4);
	CHECK_EQ(now.timeout, 12345);
	CHECK_EQ(now.sndbuf, before->sndbuf);
	CHECK_EQ(now.rcvbuf, before->rcvbuf);
	CHECK_EQ(now.scale, before->scale);
	CHECK_EQ(now.mss, before->mss);
	CHECK_EQ(now.port, before->port);
	CHECK_EQ(now.peer, before->peer);
	CHECK_EQ(get(fd, IPPROTO_TCP, TCP_NODELAY), 1);
	CHECK_EQ(get(fd, SOL_SOCKET, SO_KEEPALIVE), 1);
	CHECK_EQ(get(fd, SOL_SOCKET, SO_REUSEADDR), 1);
	MUST(getsockopt(fd, SOL_SOCKET, SO_LINGER, &l, &n));
	CHECK(l.l_onoff == 1 && l.l_linger == 7, "linger is %d, %d", l.l_onoff, l.l_linger);
	n = sizeof(name);
	MUST(getsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, name, &n));
	CHECK(!strcmp(name, "reno"), "congestion control is %s", name);
}

/* Its ends are the far ones. */
static void child(volatile int *flags)
{
	for (int i = 0; i < PAIRS; i++)
		close(pairs[i].near);
	flags[0] = 1;
	test_wait();
	CHECK_EQ(get(pairs[OPTIONS].far, SOL_SOCKET, SO_REUSEADDR), 1);
	read_pattern(pairs[UNREAD].far, UNREAD_BYTES, 3, "unread");
	read_pattern(pairs[FULL].far, full_bytes, 5, "full");
	read_pattern(pairs[HALF].far, 3000, 6, "half-closed");
	expect_end(pairs[HALF].far, "half-closed");
	expect_end(pairs[HALF_READ].far, "half-closed, read");
	send_pattern(pairs[HALF].far, 4000, 8);
	send_pattern(pairs[HALF_READ].far, 4000, 9);
	for (int i = 0; i < PAIRS; i++) {
		if (i != HALF && i != HALF_READ) {
			read_pattern(pairs[i].far, 800, 10 + (uint64_t)i, "afterwards");
			send_pattern(pairs[i].far, 600, 20 + (uint64_t)i);
		}
		MUST(close(pairs[i].far));
	}
	exit(3);
}

int main(int argc, char **argv)
{
	struct seen before;
	volatile int *flags;
	pid_t pid;

	test_init(argc, argv);
	flags = test_shared_flags(1);
	setup();
	prepare();
	look(pairs[OPTIONS].near, &before);
	pid = test_fork();
	if (!pid)
		child(flags);
	for (int i = 0; i < PAIRS; i++)
		close(pairs[i].far);
	while (!flags[0])
		test_sleep_ms(1);
	test_ready();
	test_wait();
	check_options(pairs[OPTIONS].near, &before);
	CHECK_EQ(state_of(pairs[IDLE].near), TCP_ESTABLISHED);
	read_pattern(pairs[UNREAD].near, UNREAD_BYTES / 2, 4, "unread, near");
	for (int i = 0; i < PAIRS; i++)
		if (i != HALF && i != HALF_READ)
			send_pattern(pairs[i].near, 800, 10 + (uint64_t)i);
	read_pattern(pairs[HALF].near, 4000, 8, "half-closed, back");
	read_pattern(pairs[HALF_READ].near, 4000, 9, "half-closed and read, back");
	for (int i = 0; i < PAIRS; i++) {
		if (i != HALF && i != HALF_READ)
			read_pattern(pairs[i].near, 600, 20 + (uint64_t)i, "back");
		expect_end(pairs[i].near, "at the end");
	}
	test_reap(pid, 3);
	test_pass();
}
