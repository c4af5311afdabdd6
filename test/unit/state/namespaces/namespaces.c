/* SPDX-License-Identifier: Apache-2.0 */
#include "../task/fixture.h"

#include <sched.h>

#include "state/namespaces/namespaces.h"

static int flags;

static void run(void)
{
	if (flags && unshare(flags) < 0)
		shared[15] = errno;
	shared[0] = 1;
	for (;;)
		pause();
}

static int preflight(int with, struct error *e)
{
	struct side s;

	memset((void *)shared, 0, 4096);
	error_clear(e);
	flags = with;
	pid_t pid = start(run);

	await(0, 1);
	assert_int_equal(shared[15], 0);
	side_list(&s, pid);
	int r = kind_namespaces.preflight(NULL, &s.p, e);

	finish(pid);
	return r;
}

static void test_namespaces(void **state)
{
	(void)state;
	const struct {
		int flag;
		const char *name;
	} cases[] = {
		{CLONE_NEWUTS, "own UTS namespace"},
		{CLONE_NEWIPC, "own IPC namespace"},
		{CLONE_NEWNET, "own network namespace"},
		{CLONE_NEWNS, "own mount namespace"},
		{CLONE_NEWCGROUP, "own cgroup namespace"},
		{CLONE_NEWPID, "own pid (for its children) namespace"},
	};
	struct error e = ERROR_INIT;

	assert_ok(preflight(0, &e), &e);
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		assert_int_equal(preflight(cases[i].flag, &e), -EOPNOTSUPP);
		if (!strstr(e.text, cases[i].name))
			print_error("%s\n", e.text);
		assert_non_null(strstr(e.text, cases[i].name));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_namespaces),
	};

	if (geteuid() != 0)
		return 0; /* needs to make namespaces */
	return cmocka_run_group_tests(tests, shared_setup, NULL);
}
