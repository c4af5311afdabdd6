/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

#include "procfs/procfs.h"

static pthread_barrier_t barrier;
static pid_t from_thread;

static void *thread(void *arg)
{
	(void)arg;
	from_thread = fork();
	if (from_thread == 0)
		for (;;)
			pause();
	pthread_barrier_wait(&barrier);
	pthread_barrier_wait(&barrier);
	return NULL;
}

static void test_threads_and_children(void **state)
{
	(void)state;
	pthread_t t;
	pid_t *v, child = fork();
	size_t n;
	struct error e = ERROR_INIT;

	if (child == 0)
		for (;;)
			pause();
	pthread_barrier_init(&barrier, NULL, 2);
	pthread_create(&t, NULL, thread, NULL);
	pthread_barrier_wait(&barrier);
	assert_int_equal(proc_threads(getpid(), &v, &n, &e), 0);
	assert_int_equal(n, 2);
	assert_int_equal(v[0], getpid());
	free(v);
	assert_int_equal(proc_children(getpid(), &v, &n, &e), 0);
	assert_int_equal(n, 2);
	assert_int_equal(v[0], child < from_thread ? child : from_thread);
	assert_int_equal(v[1], child < from_thread ? from_thread : child);
	free(v);
	assert_int_equal(proc_children(child, &v, &n, &e), 0);
	assert_int_equal(n, 0);
	free(v);
	pthread_barrier_wait(&barrier);
	pthread_join(t, NULL);
	kill(child, SIGKILL);
	kill(from_thread, SIGKILL);
	waitpid(child, NULL, 0);
	waitpid(from_thread, NULL, 0);
	assert_int_equal(proc_children(child, &v, &n, &e), -ENOENT);
}

static void test_fds(void **state)
{
	(void)state;
	int *before, *after, fd = fcntl(0, F_DUPFD, 700);
	size_t n, m;
	struct error e = ERROR_INIT;

	assert_int_equal(proc_fds(getpid(), &before, &n, &e), 0);
	assert_true(n >= 2);
	for (size_t i = 1; i < n; i++)
		assert_true(before[i - 1] < before[i]);
	assert_int_equal(before[n - 1], 700);
	close(fd);
	assert_int_equal(proc_fds(getpid(), &after, &m, &e), 0);
	assert_int_equal(m, n - 1);
	free(before);
	free(after);
}

static void test_limits(void **state)
{
	(void)state;
	struct rlimit r = {123, 4567}, got;
	struct proc_limits l;
	struct error e = ERROR_INIT;

	setrlimit(RLIMIT_CORE, &r);
	assert_int_equal(proc_limits_read(getpid(), &l, &e), 0);
	for (int i = 0; i < 16; i++) {
		getrlimit(i, &got);
		assert_int_equal(l.soft[i], got.rlim_cur);
		assert_int_equal(l.hard[i], got.rlim_max);
	}
	assert_int_equal(l.soft[RLIMIT_CORE], 123);
	assert_int_equal(proc_limits_parse("Max cpu time  1 2\n", &l, &e), -EINVAL);
	assert_int_equal(proc_limits_parse("", &l, &e), -EINVAL);
}

static void test_timers(void **state)
{
	(void)state;
	timer_t a, b;
	struct sigevent ev = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = 40, .sigev_value.sival_ptr = &a};
	struct sigevent none = {.sigev_notify = SIGEV_NONE};
	struct proc_timer *v;
	size_t n;
	struct error e = ERROR_INIT;

	assert_int_equal(timer_create(CLOCK_MONOTONIC, &ev, &a), 0);
	assert_int_equal(timer_create(CLOCK_REALTIME, &none, &b), 0);
	assert_int_equal(proc_timers_read(getpid(), &v, &n, &e), 0);
	assert_int_equal(n, 2);
	const struct proc_timer *t = v[0].signal == 40 ? &v[0] : &v[1];

	assert_int_equal(t->signal, 40);
	assert_int_equal(t->sigev_value, (uintptr_t)&a);
	assert_int_equal(t->notify, SIGEV_SIGNAL);
	assert_int_equal(t->notify_tid, getpid());
	assert_int_equal(t->clock, CLOCK_MONOTONIC);
	free(v);
	assert_int_equal(
		proc_timers_parse("ID: 3\nsignal: 0/00ff\nnotify: signal/tid.9\nClockID: -6\n", &v, &n, &e),
		0);
	assert_int_equal(v[0].notify, SIGEV_THREAD_ID);
	assert_int_equal(v[0].clock, -6);
	free(v);
	assert_int_equal(
		proc_timers_parse("ID: 3\nsignal: 0/00ff\nnotify: x/tid.9\nClockID: -6\n", &v, &n, &e),
		-EINVAL);
	assert_int_equal(proc_timers_parse("ID: 3\nsignal: 0", &v, &n, &e), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_threads_and_children),
		cmocka_unit_test(test_fds),
		cmocka_unit_test(test_limits),
		cmocka_unit_test(test_timers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
