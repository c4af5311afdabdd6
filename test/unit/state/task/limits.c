/* SPDX-License-Identifier: Apache-2.0 */
#include "fixture.h"

#include <sys/resource.h>

static const struct state_kind *const kinds[] = {&kind_limits, NULL};

static void run_plain(void)
{
	shared[0]++;
	for (;;)
		pause();
}

/* All different, some soft equal to hard; as another user, whose limits prlimit(2) may not read. */
static void run_special(void)
{
	for (int i = 0; i < RLIM_NLIMITS; i++) {
		struct rlimit l;

		getrlimit(i, &l);
		l.rlim_max = MIN(l.rlim_max, (rlim_t)3000 + i);
		l.rlim_cur = i % 3 ? l.rlim_max / 2 : l.rlim_max;
		if (i == RLIMIT_STACK || i == RLIMIT_AS || i == RLIMIT_DATA)
			l.rlim_cur = l.rlim_max = RLIM_INFINITY;
		if (setrlimit(i, &l) < 0 && i != RLIMIT_STACK && i != RLIMIT_AS && i != RLIMIT_DATA)
			shared[15] = errno;
	}
	syscall(SYS_setresuid, 1000, 1000, 1000);
	prctl(PR_SET_PDEATHSIG, SIGKILL); /* reset by the change */
	shared[0]++;
	for (;;)
		pause();
}

static void test_move(void **state)
{
	(void)state;
	struct snapshot s;

	memset((void *)shared, 0, 4096);
	pid_t from = start(run_special), to = start(run_plain);

	await(0, 2);
	assert_int_equal(shared[15], 0);
	capture(from, kinds, &s);

	const Ferry__Limits *m = (void *)snapshot_find(&s, FERRY__RECORD_TYPE__RECORD_LIMITS, from, 0);

	assert_int_equal(m->n_limits, 16);
	assert_int_equal(m->limits[RLIMIT_NOFILE]->hard, 3000 + RLIMIT_NOFILE);
	assert_int_equal(m->limits[RLIMIT_NOFILE]->soft, (3000 + RLIMIT_NOFILE) / 2);
	snapshot_deinit(&s);
	move_and_compare(from, to, kinds);
	finish(from);
	finish(to);
}

static void test_check(void **state)
{
	(void)state;
	Ferry__Limit one = FERRY__LIMIT__INIT, *list[16];
	Ferry__Limits m = FERRY__LIMITS__INIT;
	struct rlimit low = {10, 20};
	struct error e = ERROR_INIT;
	int status;

	for (int i = 0; i < 16; i++)
		list[i] = &one;
	m.limits = list;
	m.n_limits = 16;
	one.soft = 15;
	one.hard = 10;
	assert_int_equal(kind_limits.check(NULL, 1, 0, &m.base, &e), -EPROTO);

	pid_t child = fork();

	if (child == 0) {
		one.soft = 0;
		one.hard = 21;
		m.n_limits = 8;
		error_clear(&e);
		setrlimit(RLIMIT_NOFILE, &low);
		if (syscall(SYS_setresuid, 1000, 1000, 1000) < 0)
			_exit(0);
		_exit(kind_limits.check(NULL, 1, 0, &m.base, &e) == -EPERM && strstr(e.text, "nofile (21)")
			      ? 0
			      : 1);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_move),
		cmocka_unit_test(test_check),
	};

	return cmocka_run_group_tests(tests, shared_setup, NULL);
}
