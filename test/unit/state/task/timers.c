/* SPDX-License-Identifier: Apache-2.0 */
#include "fixture.h"

#include <pthread.h>
#include <sys/time.h>

static const struct state_kind *const kinds[] = {&kind_timers, NULL};

static void *second(void *arg)
{
	(void)arg;
	shared[1]++;
	for (;;)
		pause();
	return NULL;
}

static void block_all(void)
{
	sigset_t all;

	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, NULL);
}

static void run_plain(void)
{
	pthread_t t;

	block_all();
	pthread_create(&t, NULL, second, NULL);
	shared[0]++;
	for (;;)
		pause();
}

static int create(clockid_t clock, int notify, int sig, pid_t tid, uintptr_t value)
{
	struct sigevent s = {
		.sigev_notify = notify, .sigev_signo = sig, .sigev_value.sival_ptr = (void *)value};
	int id = -1;

	s._sigev_un._tid = tid;
	syscall(SYS_timer_create, clock, &s, &id);
	return id;
}

static void arm(int id, long ms, long interval_ms)
{
	struct itimerspec v = {
		.it_value = {ms / 1000, ms % 1000 * 1000000},
		.it_interval = {interval_ms / 1000, interval_ms % 1000 * 1000000},
	};

	syscall(SYS_timer_settime, id, 0, &v, NULL);
}

static void run_special(void)
{
	struct itimerval real = {{7, 0}, {1000, 5}}, prof = {{0, 500000}, {100, 0}};
	pthread_t t;
	int ids[6];

	block_all();
	pthread_create(&t, NULL, second, NULL);
	setitimer(ITIMER_REAL, &real, NULL);
	setitimer(ITIMER_PROF, &prof, NULL);
	for (int i = 0; i < 6; i++)
		ids[i] = create(CLOCK_REALTIME, SIGEV_NONE, 0, 0, 0);
	/* Leaves 0 and 5, and what comes now: not without gaps. */
	for (int i = 1; i < 5; i++)
		syscall(SYS_timer_delete, ids[i]);
	shared[4] = create(CLOCK_MONOTONIC, SIGEV_SIGNAL, SIGRTMIN + 4, 0, 0x123456789abcdef0);
	shared[5] = create(CLOCK_BOOTTIME, SIGEV_SIGNAL | SIGEV_THREAD_ID, SIGUSR1, getpid(), 5);
	shared[6] = create(CLOCK_PROCESS_CPUTIME_ID, SIGEV_SIGNAL, SIGUSR2, 0, 6);
	arm(shared[4], 500000, 0);
	arm(shared[5], 5, 10);
	arm(shared[6], 300000, 7000);
	msleep(30); /* [5] is pending and overdue now */
	shared[0]++;
	for (;;)
		pause();
}

static const Ferry__PosixTimer *timer_of(const Ferry__Timers *m, int id)
{
	for (size_t i = 0; i < m->n_posix; i++)
		if (m->posix[i]->id == id)
			return m->posix[i];
	fail_msg("no timer %d", id);
	return NULL;
}

/* Those of @m were armed @later milliseconds or less before. */
static void assert_timers(const Ferry__Timers *m, pid_t tid, int64_t later)
{
	const int64_t ms = 1000000;

	assert_int_equal(m->n_interval, 3);
	assert_in_range(m->interval[0]->value_us, (1000000 - later) * 1000, 1000000 * 1000 + 5);
	assert_int_equal(m->interval[0]->interval_us, 7000000);
	assert_int_equal(m->interval[1]->value_us, 0);
	assert_in_range(m->interval[2]->value_us, (100000 - later) * 1000, 100000 * 1000 + 10000);
	assert_int_equal(m->interval[2]->interval_us, 500000);
	assert_int_equal(m->n_posix, 5);

	const Ferry__PosixTimer *t = timer_of(m, shared[4]);

	assert_int_equal(t->clock, CLOCK_MONOTONIC);
	assert_int_equal(t->notify, SIGEV_SIGNAL);
	assert_int_equal(t->signal, SIGRTMIN + 4);
	assert_true(t->sigev_value == 0x123456789abcdef0);
	assert_in_range(t->value_ns, (500000 - later) * ms, 500000 * ms);
	assert_int_equal(t->interval_ns, 0);
	t = timer_of(m, shared[5]);
	assert_int_equal(t->clock, CLOCK_BOOTTIME);
	assert_int_equal(t->notify, SIGEV_SIGNAL | SIGEV_THREAD_ID);
	assert_int_equal(t->notify_tid, tid);
	assert_in_range(t->value_ns, 1, 10 * ms);
	assert_int_equal(t->interval_ns, 10 * ms);
	t = timer_of(m, shared[6]);
	assert_in_range(t->value_ns, (300000 - later) * ms, 300000 * ms + 10 * ms);
	assert_int_equal(t->interval_ns, 7000 * ms);
	assert_int_equal(timer_of(m, 0)->value_ns, 0);
	assert_int_equal(timer_of(m, 0)->notify, SIGEV_NONE);
}

static void test_move(void **state)
{
	(void)state;
	struct snapshot s, after;

	memset((void *)shared, 0, 4096);
	pid_t from = start(run_special), to = start(run_plain);

	await(0, 2);
	await(1, 2);
	capture(from, kinds, &s);

	Ferry__Timers *m = (void *)snapshot_find(&s, FERRY__RECORD_TYPE__RECORD_TIMERS, from, 0);

	assert_timers(m, from, 5000);
	for (size_t i = 0; i < m->n_posix; i++)
		if (m->posix[i]->notify & SIGEV_THREAD_ID)
			m->posix[i]->notify_tid = to;
	apply(to, kinds, &s, NULL);
	capture(to, kinds, &after);
	assert_timers((void *)snapshot_find(&after, FERRY__RECORD_TYPE__RECORD_TIMERS, to, 0), to, 10000);
	snapshot_deinit(&s);
	snapshot_deinit(&after);
	finish(from);
	finish(to);
}

/* An interval timer whose signal waits is armed again by the kernel only when it is taken. */
static void run_overdue(void)
{
	struct itimerval real = {{3, 0}, {0, 1000}};

	block_all();
	setitimer(ITIMER_REAL, &real, NULL);
	msleep(20);
	shared[0]++;
	for (;;)
		pause();
}

static void test_overdue(void **state)
{
	(void)state;
	struct snapshot s;

	memset((void *)shared, 0, 4096);
	pid_t from = start(run_overdue);

	await(0, 1);
	capture(from, kinds, &s);

	const Ferry__Timers *m = (void *)snapshot_find(&s, FERRY__RECORD_TYPE__RECORD_TIMERS, from, 0);

	assert_in_range(m->interval[0]->value_us, 1, 3000000);
	assert_int_equal(m->interval[0]->interval_us, 3000000);
	snapshot_deinit(&s);
	finish(from);
}

static void run_thread_clock(void)
{
	create(CLOCK_THREAD_CPUTIME_ID, SIGEV_SIGNAL, SIGUSR1, 0, 0);
	run_plain();
}

static void test_thread_clock(void **state)
{
	(void)state;
	struct error e = ERROR_INIT;
	struct side s;

	memset((void *)shared, 0, 4096);
	pid_t pid = start(run_thread_clock);

	await(0, 1);
	await(1, 1);
	side_list(&s, pid);
	assert_int_equal(kind_timers.preflight(NULL, &s.p, &e), -EOPNOTSUPP);
	assert_non_null(strstr(e.text, "timer 0 runs on the CPU clock"));
	finish(pid);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_move),
		cmocka_unit_test(test_overdue),
		cmocka_unit_test(test_thread_clock),
	};

	return cmocka_run_group_tests(tests, shared_setup, NULL);
}
