/* SPDX-License-Identifier: Apache-2.0 */
#include "fixture.h"

#include <linux/sched.h>
#include <linux/sched/types.h>
#include <sys/resource.h>

static const struct state_kind *const kinds[] = {&kind_sched, NULL};
static struct sched_attr attr;
static int nice_value, io_priority;
static unsigned long cpus;

static void run_plain(void)
{
	shared[0]++;
	for (;;)
		pause();
}

static void run_special(void)
{
	attr.size = sizeof(attr);
	if (cpus && syscall(SYS_sched_setaffinity, 0, sizeof(cpus), &cpus) < 0)
		shared[15] = 1;
	if (setpriority(PRIO_PROCESS, 0, nice_value) < 0)
		shared[15] = 2;
	if (syscall(SYS_sched_setattr, 0, &attr, 0) < 0)
		shared[15] = errno * 1000;
	if (io_priority && syscall(SYS_ioprio_set, 1, 0, io_priority) < 0)
		shared[15] = 4;
	shared[0]++;
	for (;;)
		pause();
}

static void move(void)
{
	memset((void *)shared, 0, 4096);
	pid_t from = start(run_special), to = start(run_plain);

	await(0, 2);
	assert_int_equal(shared[15], 0);
	move_and_compare(from, to, kinds);

	unsigned long mask[32] = {0};

	assert_true(syscall(SYS_sched_getaffinity, to, sizeof(mask), mask) > 0);
	if (cpus)
		assert_int_equal(mask[0], cpus);
	finish(from);
	finish(to);
}

static void test_normal(void **state)
{
	(void)state;
	nice_value = 7;
	attr = (struct sched_attr){.sched_policy = SCHED_BATCH, .sched_nice = 7};
	io_priority = 2 << 13 | 6;
	cpus = 1;
	move();
	nice_value = -5;
	attr = (struct sched_attr){
		.sched_policy = SCHED_NORMAL, .sched_nice = -5, .sched_flags = SCHED_FLAG_RESET_ON_FORK};
	io_priority = 3 << 13;
	cpus = 0;
	move();
	nice_value = 3;
	attr = (struct sched_attr){.sched_policy = SCHED_IDLE, .sched_nice = 3};
	move();
}

static void test_real_time(void **state)
{
	(void)state;
	nice_value = 4;
	io_priority = 1 << 13 | 2;
	cpus = 0;
	attr = (struct sched_attr){.sched_policy = SCHED_RR, .sched_priority = 3};
	move();
	attr = (struct sched_attr){
		.sched_policy = SCHED_FIFO, .sched_priority = 9, .sched_flags = SCHED_FLAG_RESET_ON_FORK};
	move();
	attr = (struct sched_attr){.sched_policy = SCHED_DEADLINE,
				   .sched_runtime = 1000000,
				   .sched_deadline = 20000000,
				   .sched_period = 30000000};
	nice_value = 0;
	move();
}

/* Bound to what is not here: to all that is. */
static void test_missing_cpus(void **state)
{
	(void)state;
	uint8_t far[1024] = {0};
	Ferry__Sched m = FERRY__SCHED__INIT;
	struct error e = ERROR_INIT;
	struct rebuild r = {0};
	struct thread t = {0};
	struct process p = {0};
	unsigned long mask = 0, before = 0;

	memset((void *)shared, 0, 4096);
	pid_t to = start(run_plain);

	await(0, 1);
	far[1000] = 1;
	m.affinity = (ProtobufCBinaryData){sizeof(far), far};
	t.task.tid = p.pid = to;
	assert_true(syscall(SYS_sched_getaffinity, to, sizeof(before), &before) > 0);
	assert_ok(kind_sched.finish(&r, &p, &t, &m.base, &e), &e);
	assert_true(syscall(SYS_sched_getaffinity, to, sizeof(mask), &mask) > 0);
	assert_true((mask & before) == before);
	far[0] = 1; /* one of them is */
	assert_ok(kind_sched.finish(&r, &p, &t, &m.base, &e), &e);
	assert_true(syscall(SYS_sched_getaffinity, to, sizeof(mask), &mask) > 0);
	assert_int_equal(mask, 1);
	m.affinity.len = sizeof(far) + 1;
	assert_int_equal(kind_sched.check(&r, to, to, &m.base, &e), -EPROTO);
	finish(to);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_normal),
		cmocka_unit_test(test_real_time),
		cmocka_unit_test(test_missing_cpus),
	};

	return cmocka_run_group_tests(tests, shared_setup, NULL);
}
