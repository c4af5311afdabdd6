/* SPDX-License-Identifier: Apache-2.0 */
/* What goes in at one end comes out at the other, in order and whole, or ends early; whatever the connections
 * do. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <endian.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/util.h"
#include "migrate/bundle.h"

#define N     5
#define TOTAL (24u << 20)

static uint8_t byte_at(uint64_t i)
{
	return (uint8_t)(i * 7 + (i >> 8) * 13 + (i >> 16) * 31);
}

struct side {
	int sock;
	uint64_t seed;
	uint64_t got;
	bool good;
};

static void *sender(void *arg)
{
	const struct side *s = arg;
	cleanup_free uint8_t *b = xmalloc(200000);
	unsigned r = 1;

	for (uint64_t at = 0; at < TOTAL;) {
		uint64_t some = 1 + (uint64_t)rand_r(&r) % 199999;
		size_t n = MIN(some, TOTAL - at);

		for (size_t i = 0; i < n; i++)
			b[i] = byte_at(at + i + s->seed);
		for (size_t done = 0; done < n;) {
			ssize_t k = send(s->sock, b + done, n - done, MSG_NOSIGNAL);

			if (k < 0)
				return NULL;
			done += (size_t)k;
		}
		at += n;
	}
	shutdown(s->sock, SHUT_WR);
	return NULL;
}

static void *receiver(void *arg)
{
	struct side *s = arg;
	cleanup_free uint8_t *b = xmalloc(1 << 20);
	ssize_t n;

	s->good = true;
	while ((n = recv(s->sock, b, 1 << 20, 0)) > 0)
		for (ssize_t i = 0; i < n; i++)
			s->good &= b[i] == byte_at(s->got++ + s->seed);
	return NULL;
}

/* Connections of different haste: each passes on what it gets in pieces of its own, with pauses. */
struct hop {
	int from, to;
	unsigned pause_us;
	uint64_t cut; /* ends after so many bytes; 0: never */
};

static void *hop(void *arg)
{
	const struct hop *h = arg;
	cleanup_free uint8_t *b = xmalloc(1 << 16);
	uint64_t all = 0;
	ssize_t n;

	while ((n = recv(h->from, b, 1 + all % 60000, 0)) > 0) {
		all += (uint64_t)n;
		if (h->cut && all > h->cut)
			break;
		if (h->pause_us)
			usleep(h->pause_us);
		for (ssize_t done = 0; done < n;) {
			ssize_t k = send(h->to, b + done, (size_t)(n - done), MSG_NOSIGNAL);

			if (k < 0) {
				shutdown(h->from, SHUT_RDWR); /* as a reset would tell */
				return NULL;
			}
			done += k;
		}
	}
	shutdown(h->to, SHUT_WR);
	return NULL;
}

struct line {
	int a[N], b[N]; /* the ends that the bundles get */
	int near[N], far[N];
	struct hop hops[2 * N];
	pthread_t threads[2 * N];
};

static void lay(struct line *l, uint64_t cut)
{
	for (int i = 0; i < N; i++) {
		int p[2];

		assert_return_code(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, p), errno);
		l->a[i] = p[0];
		l->near[i] = p[1];
		assert_return_code(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, p), errno);
		l->b[i] = p[0];
		l->far[i] = p[1];
		l->hops[2 * i] = (struct hop){l->near[i], l->far[i], i == 1 ? 300 : 0, i == 2 ? cut : 0};
		l->hops[2 * i + 1] = (struct hop){l->far[i], l->near[i], i == 3 ? 300 : 0, 0};
	}
}

static void join_all(struct side *a, struct side *b, uint64_t cut, pid_t pids[2])
{
	static struct line l;
	struct error e = ERROR_INIT;
	pthread_t t[4];

	lay(&l, cut);
	a->sock = bundle_start(l.a, N, &pids[0], &e);
	b->sock = bundle_start(l.b, N, &pids[1], &e);
	assert_true(a->sock >= 0 && b->sock >= 0);
	for (int i = 0; i < 2 * N; i++)
		pthread_create(&l.threads[i], NULL, hop, &l.hops[i]);
	pthread_create(&t[0], NULL, sender, a);
	pthread_create(&t[1], NULL, sender, b);
	pthread_create(&t[2], NULL, receiver, a);
	pthread_create(&t[3], NULL, receiver, b);
	for (int i = 2; i < 4; i++)
		pthread_join(t[i], NULL);
	shutdown(a->sock, SHUT_RDWR);
	shutdown(b->sock, SHUT_RDWR);
	pthread_join(t[0], NULL);
	pthread_join(t[1], NULL);
	close(a->sock);
	close(b->sock);
	for (int i = 0; i < 2; i++)
		assert_int_equal(waitpid(pids[i], NULL, 0), pids[i]);
	for (int i = 0; i < 2 * N; i++)
		pthread_join(l.threads[i], NULL);
	for (int i = 0; i < N; i++) {
		close(l.near[i]);
		close(l.far[i]);
	}
}

static void test_both_ways(void **state)
{
	(void)state;
	struct side a = {.seed = 5}, b = {.seed = 5};
	pid_t pids[2];

	join_all(&a, &b, 0, pids);
	assert_true(a.good && b.good);
	assert_int_equal(a.got, TOTAL);
	assert_int_equal(b.got, TOTAL);
}

/* One of them ends in the middle: all end, and what came is a beginning. */
static void test_cut(void **state)
{
	(void)state;
	struct side a = {.seed = 9}, b = {.seed = 9};
	pid_t pids[2];

	join_all(&a, &b, 1 << 20, pids);
	assert_true(a.good && b.good);
	assert_true(b.got < TOTAL);
}

struct chunk {
	uint32_t magic, length;
	uint64_t number;
	const char *text;
};

static void put_chunk(int sock, struct chunk c)
{
	struct {
		uint32_t magic, length;
		uint64_t number;
	} head = {htole32(c.magic), htole32(c.length), htole64(c.number)};

	send(sock, &head, sizeof(head), MSG_NOSIGNAL);
	if (c.text)
		send(sock, c.text, strlen(c.text), MSG_NOSIGNAL);
}

/* Bytes that came out before the end; into @text. */
static size_t read_to_end(int sock, char *text, size_t room)
{
	size_t n = 0;
	ssize_t k;

	while (n < room && (k = recv(sock, text + n, room - n, 0)) > 0)
		n += (size_t)k;
	return n;
}

#define GOOD 0x4b4e4843u

static void test_bad_chunks(void **state)
{
	(void)state;
	static const struct {
		struct chunk c[3]; /* on the first, the second, the first connection */
		const char *out;
	} cases[] = {
		{{{GOOD, 2, 1, "cd"}, {GOOD, 2, 0, "ab"}, {GOOD, 2, 2, "ef"}}, "abcdef"},
		{{{GOOD, 2, 0, "ab"}, {GOOD, 2, 1, "cd"}, {GOOD, 2, 0, "ef"}}, "abcd"}, /* again */
		{{{GOOD, 2, 0, "ab"}, {GOOD, 2, 0, "cd"}, {GOOD, 2, 1, "ef"}}, NULL},   /* twice */
		{{{GOOD, 2, 0, "ab"}, {GOOD + 1, 2, 1, "cd"}, {0}}, "ab"},
		{{{GOOD, 2, 0, "ab"}, {GOOD, 0, 1, NULL}, {0}}, "ab"},
		{{{GOOD, 2, 0, "ab"}, {GOOD, 65537, 1, "cd"}, {0}}, "ab"},
		{{{GOOD, 2, 0, "ab"}, {GOOD, 3, 1, "cd"}, {0}}, "ab"},                /* ends within */
		{{{GOOD, 2, 0, "ab"}, {GOOD, 2, 2, "ef"}, {GOOD, 2, 3, "gh"}}, "ab"}, /* 1 never comes */
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct error e = ERROR_INIT;
		char text[64] = "";
		int p[2][2], ends[2];
		pid_t pid;

		for (int k = 0; k < 2; k++) {
			assert_return_code(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, p[k]), errno);
			ends[k] = p[k][0];
		}
		int sock = bundle_start(ends, 2, &pid, &e);

		assert_true(sock >= 0);
		for (int k = 0; k < 3 && cases[i].c[k].magic; k++)
			put_chunk(p[k % 2][1], cases[i].c[k]);
		for (int k = 0; k < 2; k++)
			shutdown(p[k][1], SHUT_WR);
		shutdown(sock, SHUT_WR);
		read_to_end(sock, text, sizeof(text) - 1);
		if (cases[i].out)
			assert_true(!strncmp(text, cases[i].out, strlen(text)) &&
				    (i || strlen(text) == strlen(cases[i].out)));
		else
			assert_true(!strcmp(text, "") || !strncmp(text, "ab", 2) || !strncmp(text, "cd", 2));
		assert_null(strstr(text, "gh"));
		close(sock);
		waitpid(pid, NULL, 0);
		close(p[0][1]);
		close(p[1][1]);
	}
}

static void test_limits(void **state)
{
	(void)state;
	struct error e = ERROR_INIT;
	int socks[BUNDLE_MAX + 1];
	pid_t pid;

	for (unsigned i = 0; i <= BUNDLE_MAX; i++)
		socks[i] = socket(AF_UNIX, SOCK_STREAM, 0);
	assert_int_equal(bundle_start(socks, BUNDLE_MAX + 1, &pid, &e), -EINVAL);
	assert_int_equal(close(socks[0]), -1); /* taken over all the same */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_both_ways),
		cmocka_unit_test(test_cut),
		cmocka_unit_test(test_bad_chunks),
		cmocka_unit_test(test_limits),
	};

	alarm(100);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
