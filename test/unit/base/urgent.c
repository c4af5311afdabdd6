/* SPDX-License-Identifier: Apache-2.0 */
#include <stdbool.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <linux/capability.h>
#include <pthread.h>
#include <sched.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/urgent.h"

static const int urgent = SCHED_RR | SCHED_RESET_ON_FORK;

static pthread_barrier_t at;
static int thread_policy[3];

static void *watch(void *ignored)
{
	for (int i = 0; i < 3; i++) {
		pthread_barrier_wait(&at);
		thread_policy[i] = sched_getscheduler(0);
		pthread_barrier_wait(&at);
	}
	return ignored;
}

static void let_it_look(void)
{
	pthread_barrier_wait(&at);
	pthread_barrier_wait(&at);
}

/* The exit code of a child: its policy. */
static int child_policy(void)
{
	int status;
	pid_t pid = fork();

	if (!pid)
		_exit(sched_getscheduler(0));
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return WEXITSTATUS(status);
}

static bool granted(void)
{
	const struct sched_param rr = {.sched_priority = 1}, other = {0};
	bool r = sched_setscheduler(0, SCHED_RR, &rr) == 0;

	sched_setscheduler(0, SCHED_OTHER, &other);
	return r;
}

static void test_all_threads_and_no_child(void **state)
{
	(void)state;
	pthread_t t;

	if (!granted())
		skip();
	pthread_barrier_init(&at, NULL, 2);
	assert_int_equal(pthread_create(&t, NULL, watch, NULL), 0);
	let_it_look();
	urgent_begin();
	urgent_begin();
	assert_int_equal(sched_getscheduler(0), urgent);
	assert_int_equal(child_policy(), SCHED_OTHER);
	let_it_look();
	urgent_end();
	assert_int_equal(sched_getscheduler(0), SCHED_OTHER);
	let_it_look();
	urgent_end();
	pthread_join(t, NULL);
	assert_int_equal(thread_policy[0], SCHED_OTHER);
	assert_int_equal(thread_policy[1], urgent);
	assert_int_equal(thread_policy[2], SCHED_OTHER);
}

/* Somebody chose it. */
static void test_other_policies_stay(void **state)
{
	(void)state;
	const struct sched_param other = {0};

	assert_int_equal(sched_setscheduler(0, SCHED_BATCH, &other), 0);
	urgent_begin();
	assert_int_equal(sched_getscheduler(0), SCHED_BATCH);
	urgent_end();
	assert_int_equal(sched_getscheduler(0), SCHED_BATCH);
	assert_int_equal(sched_setscheduler(0, SCHED_OTHER, &other), 0);
}

static void drop_sys_nice(void)
{
	struct __user_cap_header_struct h = {_LINUX_CAPABILITY_VERSION_3, 0};
	struct __user_cap_data_struct d[2];

	assert_int_equal(syscall(SYS_capget, &h, d), 0);
	d[0].effective &= ~(1u << CAP_SYS_NICE);
	assert_int_equal(syscall(SYS_capset, &h, d), 0);
}

/* In a child, which may lose what it is granted. */
static void test_not_granted(void **state)
{
	(void)state;
	int status;
	pid_t pid = fork();

	if (!pid) {
		const struct rlimit none = {0, 0};

		setpriority(PRIO_PROCESS, 0, 5);
		setrlimit(RLIMIT_RTPRIO, &none);
		setrlimit(RLIMIT_NICE, &none);
		drop_sys_nice();
		urgent_begin();
		bool same = sched_getscheduler(0) == SCHED_OTHER && getpriority(PRIO_PROCESS, 0) == 5;

		urgent_end();
		_exit(same && sched_getscheduler(0) == SCHED_OTHER && getpriority(PRIO_PROCESS, 0) == 5 ? 0
													: 1);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_all_threads_and_no_child),
		cmocka_unit_test(test_other_policies_stay),
		cmocka_unit_test(test_not_granted),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
