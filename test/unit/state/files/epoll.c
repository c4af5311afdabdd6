/* SPDX-License-Identifier: Apache-2.0 */
/* Round trips of epoll sets. */
#include "fixture.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

static void add(int set, int fd, uint32_t events, uint64_t data)
{
	struct epoll_event e = {.events = events, .data.u64 = data};

	MUST(epoll_ctl(set, EPOLL_CTL_ADD, fd, &e) == 0);
}

static void entries_setup(int k)
{
	int p[2];

	(void)k;
	MUST(epoll_create1(EPOLL_CLOEXEC) == 0);
	MUST(eventfd(1, 0) == 1 && eventfd(0, 0) == 2);
	MUST(pipe(p) == 0);                                /* 3, 4 */
	MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, p) == 0); /* 5, 6 */
	add(0, 1, EPOLLIN, 0xfeedfacecafebeefull);
	add(0, 2, EPOLLIN | EPOLLONESHOT, 2);
	add(0, 3, EPOLLIN | EPOLLET, 3);
	add(0, 5, EPOLLIN | EPOLLRDHUP, 5);
	MUST(dup(1) == 7);
	add(0, 7, EPOLLIN | EPOLLEXCLUSIVE, 7); /* the same description under another number */
	MUST(epoll_create1(0) == 8);
	add(8, 0, EPOLLIN, 80);
	/* A number that was used again: the first entry went with its file. */
	MUST(eventfd(0, 0) == 9);
	add(0, 9, EPOLLIN, 90);
	MUST(close(9) == 0 && eventfd(0, 0) == 9);
	add(0, 9, EPOLLIN, 91);
}

static void entries_verify(int k)
{
	struct epoll_event e[16];
	int n = epoll_wait(0, e, 16, 0);
	uint64_t v = 1;

	(void)k;
	MUST(n == 2);
	for (int i = 0; i < n; i++)
		MUST(e[i].data.u64 == 0xfeedfacecafebeefull || e[i].data.u64 == 7);
	MUST(epoll_wait(8, e, 16, 0) == 1 && e[0].data.u64 == 80);
	MUST(read(1, &v, 8) == 8 && epoll_wait(0, e, 16, 0) == 0 && epoll_wait(8, e, 16, 0) == 0);
	v = 1;
	MUST(write(2, &v, 8) == 8 && epoll_wait(0, e, 16, 0) == 1 && e[0].data.u64 == 2);
	MUST(epoll_wait(0, e, 16, 0) == 0); /* one shot */
	MUST(write(4, "x", 1) == 1 && epoll_wait(0, e, 16, 0) == 1 && e[0].data.u64 == 3);
	MUST(epoll_wait(0, e, 16, 0) == 0); /* edge */
	MUST(close(6) == 0 && epoll_wait(0, e, 16, 0) == 1 && e[0].data.u64 == 5 && e[0].events & EPOLLRDHUP);
	e[0].events = EPOLLOUT;
	MUST(epoll_ctl(0, EPOLL_CTL_MOD, 3, e) == 0 && epoll_ctl(0, EPOLL_CTL_DEL, 7, NULL) == 0);
	MUST(epoll_ctl(0, EPOLL_CTL_DEL, 9, NULL) == 0 && epoll_ctl(0, EPOLL_CTL_DEL, 9, NULL) == -1);
}

static void test_entries(void **state)
{
	(void)state;
	round_trip(&(struct scenario){entries_setup, entries_verify, 1, {0}});
}

/* A set made before the fork, entries added by the child for what only the child has. */
static void forked_setup(int k)
{
	if (k == 0) {
		MUST(epoll_create1(0) == 0 && eventfd(0, 0) == 1);
		add(0, 1, EPOLLIN, 1);
	} else {
		MUST(eventfd(1, 0) == 2);
		add(0, 2, EPOLLIN, 2);
		close(1);
	}
}

static void forked_verify(int k)
{
	struct epoll_event e[4];

	if (k == 0) {
		while (!shared->values[0])
			usleep(100);
		MUST(epoll_ctl(0, EPOLL_CTL_DEL, 1, NULL) == 0);
		return;
	}
	MUST(epoll_wait(0, e, 4, 0) == 1 && e[0].data.u64 == 2);
	MUST(epoll_ctl(0, EPOLL_CTL_DEL, 2, NULL) == 0);
	shared->values[0] = 1;
}

static void test_forked(void **state)
{
	(void)state;
	round_trip(&(struct scenario){forked_setup, forked_verify, 2, {0}});
}

static void stale_setup(int k)
{
	(void)k;
	MUST(epoll_create1(0) == 0 && eventfd(0, 0) == 1 && dup(1) == 2);
	add(0, 1, EPOLLIN, 1);
	close(1);
}

static void test_stale(void **state)
{
	(void)state;
	struct fixture x;

	start(&x, &(struct scenario){stale_setup, NULL, 1, {0}});
	assert_true(preflight(&x) < 0 || capture(&x) < 0);
	assert_non_null(strstr(x.e.text, "as number 1"));
	stop(&x);
	finish(&x);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_entries),
		cmocka_unit_test(test_forked),
		cmocka_unit_test(test_stale),
	};

	return cmocka_run_group_tests(tests, make_shared, NULL);
}
