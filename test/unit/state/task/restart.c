/* SPDX-License-Identifier: Apache-2.0 */
/* The rules by themselves, and calls that really go on in another process. */
#include "fixture.h"

#include <linux/futex.h>
#include <poll.h>

#include "state/task/restart.h"

static void test_rules(void **state)
{
	(void)state;
	uint64_t none[6] = {0};

	assert_int_equal(restart_rule(SYS_read, -RESTART_SYS, none), RESTART_AGAIN);
	assert_int_equal(restart_rule(SYS_pause, -RESTART_NOHAND, none), RESTART_AGAIN);
	assert_int_equal(restart_rule(SYS_futex, -RESTART_NOINTR, none), RESTART_AGAIN);
	assert_int_equal(restart_rule(SYS_epoll_wait, -EINTR, none), RESTART_KEEP);
	assert_int_equal(restart_rule(SYS_read, 17, none), RESTART_KEEP);
	assert_int_equal(restart_rule(SYS_poll, -RESTART_BLOCK, none), RESTART_AGAIN);
	assert_int_equal(restart_rule(-1, -RESTART_BLOCK, none), RESTART_EINTR);
	assert_int_equal(restart_rule(SYS_restart_syscall, -RESTART_BLOCK, none), RESTART_EINTR);

	uint64_t wait[6] = {0x1000, FUTEX_WAIT | FUTEX_PRIVATE_FLAG, 0, 0x2000};

	assert_int_equal(restart_rule(SYS_futex, -RESTART_BLOCK, wait), RESTART_AGAIN);
	assert_int_equal(wait[3], 0x2000);

	uint64_t rest[6] = {0x1000, 0x2000}, no_rest[6] = {0x1000, 0};

	assert_int_equal(restart_rule(SYS_nanosleep, -RESTART_BLOCK, no_rest), RESTART_AGAIN);
	assert_int_equal(no_rest[0], 0x1000);
	assert_int_equal(restart_rule(SYS_nanosleep, -RESTART_BLOCK, rest), RESTART_AGAIN);
	assert_int_equal(rest[0], 0x2000);

	uint64_t clock[6] = {1, 0, 0x1000, 0x2000};

	assert_int_equal(restart_rule(SYS_clock_nanosleep, -RESTART_BLOCK, clock), RESTART_AGAIN);
	assert_int_equal(clock[2], 0x2000);
	/* To an absolute time: as it was. */
	uint64_t absolute[6] = {1, 1, 0x1000, 0x2000};

	assert_int_equal(restart_rule(SYS_clock_nanosleep, -RESTART_NOHAND, absolute), RESTART_AGAIN);
	assert_int_equal(absolute[2], 0x1000);
}

/* --- calls moved to another process ----------------------------------------------------------------------
 */
/* Both processes run the same function up to the same call; then one gets the registers of the other. Each
 * has its own place for results: shared[slot], value; [slot + 1], milliseconds; [slot + 2], done. */
static volatile unsigned slot;
static int pipe_fds[2];

static uint64_t now_ms(void)
{
	return now_ns() / 1000000;
}

static void report(int64_t value, uint64_t begun)
{
	shared[slot] = value;
	shared[slot + 1] = now_ms() - begun;
	shared[slot + 2] = 1;
	for (;;)
		pause();
}

/* ms. A call that goes on with its rest ends after LASTS, one that starts anew after LASTS + MOVED_AT;
 * between the two lies more than a busy machine delays anything. */
#define LASTS    1500
#define MOVED_AT 1000

static void run_poll(void)
{
	uint64_t begun = now_ms();
	int r = poll(NULL, 0, LASTS);

	report(r < 0 ? -errno : r, begun);
}

static void run_read(void)
{
	uint64_t begun = now_ms();
	char c = 0;
	ssize_t r = read(pipe_fds[0], &c, 1);

	report(r < 0 ? -errno : c, begun);
}

static void run_sleep_same(void)
{
	uint64_t begun = now_ms();
	struct timespec ts = {LASTS / 1000, LASTS % 1000 * 1000000};
	long r = syscall(SYS_nanosleep, &ts, &ts);

	report(r < 0 ? -errno : r, begun);
}

static void run_sleep_rest(void)
{
	uint64_t begun = now_ms();
	struct timespec ts = {LASTS / 1000, LASTS % 1000 * 1000000}, rest = {0, 0};
	long r = syscall(SYS_nanosleep, &ts, &rest);

	report(r < 0 ? -errno : r, begun);
}

static void run_futex(void)
{
	uint64_t begun = now_ms();
	uint32_t word = 0;
	struct timespec until;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_nsec += LASTS % 1000 * 1000000;
	until.tv_sec += LASTS / 1000 + until.tv_nsec / 1000000000;
	until.tv_nsec %= 1000000000;
	long r = syscall(SYS_futex, &word, FUTEX_WAIT_BITSET_PRIVATE, 0, &until, NULL, ~0u);

	report(r < 0 ? -errno : r, begun);
}

static const struct state_kind *const only_regs[] = {&kind_regs, NULL};

/* Let @run block in two processes, give the second the registers of the first. @times: how often the first is
 * stopped before (from the second time on its call reads as restart_syscall). Results of the second: slot 20.
 */
static void move_call(void (*run)(void), unsigned times)
{
	struct snapshot s;

	memset((void *)shared, 0, 4096);
	assert_int_equal(pipe(pipe_fds), 0);
	slot = 10;
	pid_t from = start(run);

	slot = 20;
	pid_t to = start(run);

	msleep(MOVED_AT);
	for (unsigned i = 1; i < times; i++) {
		capture(from, only_regs, &s);
		snapshot_deinit(&s);
		msleep(20);
	}
	capture(from, only_regs, &s);
	apply(to, only_regs, &s, NULL);
	snapshot_deinit(&s);
	assert_int_equal(write(pipe_fds[1], "xy", 2), 2);
	await(22, 1);
	await(12, 1);
	close(pipe_fds[0]);
	close(pipe_fds[1]);
	finish(from);
	finish(to);
}

static void test_read(void **state)
{
	(void)state;
	move_call(run_read, 1);
	assert_true(shared[20] == 'x' || shared[20] == 'y');
	assert_int_equal(shared[10] + shared[20], 'x' + 'y');
}

static void test_poll(void **state)
{
	(void)state;
	move_call(run_poll, 1);
	assert_int_equal(shared[10], 0);
	assert_int_equal(shared[20], 0);
	assert_in_range(shared[11], LASTS, LASTS + MOVED_AT - 1);
	assert_in_range(shared[21], LASTS + MOVED_AT, 60000); /* anew */
}

/* The number has to be found behind restart_syscall. */
static void test_poll_again(void **state)
{
	(void)state;
	move_call(run_poll, 3);
	assert_int_equal(shared[10], 0);
	assert_int_equal(shared[20], 0);
}

static void test_sleep_same(void **state)
{
	(void)state;
	move_call(run_sleep_same, 1);
	assert_int_equal(shared[10], 0);
	assert_int_equal(shared[20], 0);
	assert_in_range(shared[21], LASTS - 100, LASTS + MOVED_AT - 1); /* the rest only */
}

static void test_sleep_rest(void **state)
{
	(void)state;
	move_call(run_sleep_rest, 1);
	assert_int_equal(shared[10], 0);
	assert_int_equal(shared[20], 0);
	assert_in_range(shared[21], LASTS - 100, LASTS + MOVED_AT - 1);
}

static void test_futex(void **state)
{
	(void)state;
	move_call(run_futex, 1);
	assert_int_equal((int64_t)shared[10], -ETIMEDOUT);
	assert_int_equal((int64_t)shared[20], -ETIMEDOUT);
	assert_in_range(shared[21], LASTS - 10, LASTS + MOVED_AT - 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_rules),      cmocka_unit_test(test_read),
		cmocka_unit_test(test_poll),       cmocka_unit_test(test_poll_again),
		cmocka_unit_test(test_sleep_same), cmocka_unit_test(test_sleep_rest),
		cmocka_unit_test(test_futex),
	};

	return cmocka_run_group_tests(tests, shared_setup, NULL);
}
