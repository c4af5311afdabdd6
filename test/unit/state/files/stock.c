/* SPDX-License-Identifier: Apache-2.0 */
/* More descriptors than this process may have open: the stock by itself, and a tree that is rebuilt with it.
 */
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include "fixture.h"

#define LIMIT 241 /* of this process and all it makes: one more than the largest table */
#define MANY  1000
#define TURNS 20 /* of each process: six descriptors */

static int asked;

static bool first_three(void *ctx, pid_t pid)
{
	(void)ctx;
	(void)pid;
	return ++asked <= 3;
}

static void test_stock(void **state)
{
	(void)state;
	struct fd_stock s = {.wanted = first_three};
	struct error e = ERROR_INIT;
	uint32_t places[MANY];
	int before = count_fds(), ends[2], fd;
	uint64_t v;
	char c;

	assert_int_equal(fd_stock_init(&s, &e), 0);
	assert_true(s.room < LIMIT / 2);
	assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
	uint32_t writer = fd_stock_add(&s, ends[1]);

	for (uint64_t i = 0; i < MANY; i++) {
		fd = eventfd(i + 1, EFD_CLOEXEC | EFD_NONBLOCK);
		assert_true(fd >= 0);
		places[i] = fd_stock_add(&s, fd);
		assert_int_equal(fd_stock_trim(&s, &e), 0);
		assert_true((size_t)count_fds() < LIMIT);
	}
	assert_true(s.n_holders >= MANY / LIMIT && asked > 3);
	/* Back, in another order than they went, and where others would take them from. */
	for (size_t i = 0; i < MANY; i++) {
		size_t k = i * 7919 % MANY;
		pid_t pid;
		int there;

		fd = fd_stock_get(&s, places[k], &e);
		assert_true(fd >= 0);
		assert_int_equal(read(fd, &v, 8), 8);
		assert_int_equal(v, k + 1);
		fd_stock_where(&s, places[k], &pid, &there);
		assert_int_equal(syscall(SYS_kcmp, getpid(), pid, 0, fd, there), 0);
		assert_int_equal(fd_stock_trim(&s, &e), 0);
	}
	/* The last of all copies is closed with the stock. */
	fd_stock_close(&s, writer);
	assert_int_equal(fcntl(ends[0], F_SETFL, O_NONBLOCK), 0);
	assert_true(read(ends[0], &c, 1) < 0 && errno == EAGAIN);
	fd_stock_free(&s);
	assert_int_equal(read(ends[0], &c, 1), 0);
	close(ends[0]);
	assert_int_equal(count_fds(), before);
	assert_true(waitpid(-1, NULL, __WALL | WNOHANG) < 0 && errno == ECHILD);
}

/* Process 0 makes its own, the others have those too. */
static int base_of(int k)
{
	return k ? TURNS * 6 : 0;
}

static void crowd_setup(int k)
{
	int two[2];

	for (int i = 0; i < TURNS; i++) {
		int at = base_of(k) + i * 6, mark = k * 1000 + i;

		MUST(eventfd(mark, EFD_NONBLOCK) == at);
		MUST(pipe(two) == 0 && two[0] == at + 1);
		MUST(write(two[1], &mark, sizeof(mark)) == sizeof(mark));
		MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, two) == 0 && two[0] == at + 3);
		MUST(write(two[0], &mark, sizeof(mark)) == sizeof(mark));
		MUST(fcntl(at, F_DUPFD_CLOEXEC, 0) == at + 5); /* a second number */
	}
}

static void crowd_verify(int k)
{
	uint64_t v;

	for (int i = 0; i < TURNS; i++) {
		int at = base_of(k) + i * 6, mark = -1;

		MUST(fcntl(at, F_GETFD) == 0 && fcntl(at + 5, F_GETFD) == FD_CLOEXEC);
		MUST(syscall(SYS_kcmp, getpid(), getpid(), 0, at, at + 5) == 0);
		/* 0 gives no value back */
		MUST(k + i == 0 || (read(at + 5, &v, 8) == 8 && v == (uint64_t)(k * 1000 + i)));
		MUST(read(at + 1, &mark, sizeof(mark)) == sizeof(mark) && mark == k * 1000 + i);
		MUST(read(at + 4, &mark, sizeof(mark)) == sizeof(mark) && mark == k * 1000 + i);
	}
	MUST(fcntl(base_of(k) + TURNS * 6, F_GETFD) < 0);
}

static void test_tree(void **state)
{
	(void)state;
	round_trip(&(struct scenario){crowd_setup, crowd_verify, MAX_PROCS, {0}});
}

static int set_up(void **state)
{
	struct rlimit l = {LIMIT, LIMIT};

	return setrlimit(RLIMIT_NOFILE, &l) || make_shared(state);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_stock),
		cmocka_unit_test(test_tree),
	};

	return cmocka_run_group_tests(tests, set_up, NULL);
}
