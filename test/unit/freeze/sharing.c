/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "freeze/tree.h"

static char stacks[2][65536];

static int sleep_for_ever(void *arg)
{
	(void)arg;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (;;)
		pause();
	return 0;
}

static int make_child(void *arg)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	clone(sleep_for_ever, stacks[1] + sizeof(stacks[1]), *(int *)arg, NULL);
	return sleep_for_ever(NULL);
}

/* A process that makes a child with @flags; waits until it is there. */
static pid_t start(int flags, pid_t *ret_child)
{
	pid_t pid = fork();
	char path[64], text[32] = "";

	if (pid == 0)
		_exit(make_child(&flags));
	snprintf(path, sizeof(path), "/proc/%d/task/%d/children", pid, pid);
	while (atoi(text) == 0) {
		FILE *f = fopen(path, "re");

		if (!f || !fgets(text, sizeof(text), f))
			text[0] = 0;
		if (f)
			fclose(f);
	}
	*ret_child = atoi(text);
	return pid;
}

static void end(pid_t pid, pid_t child)
{
	kill(child, SIGKILL);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

static int check(pid_t root, bool outside, struct error *e)
{
	struct tree *t;

	assert_int_equal(tree_scan(root, &t, e), 0);
	int r = tree_check_sharing(t, outside, e);

	tree_free(t);
	return r;
}

static void test_copies(void **state)
{
	(void)state;
	struct error e = ERROR_INIT;
	pid_t child, pid = start(SIGCHLD, &child);

	assert_int_equal(check(pid, true, &e), 0);
	end(pid, child);
}

static void test_in_the_tree(void **state)
{
	(void)state;
	struct error e = ERROR_INIT;
	pid_t child, pid = start(SIGCHLD | CLONE_VM, &child);
	char want[32];

	assert_int_equal(check(pid, false, &e), -ENOTSUP);
	snprintf(want, sizeof(want), "pid %d", child);
	assert_non_null(strstr(e.text, want));
	end(pid, child);
}

static void test_outside(void **state)
{
	(void)state;
	struct error e = ERROR_INIT;
	pid_t child, pid = start(SIGCHLD | CLONE_VM, &child);
	char want[32];

	/* The child alone: its parent is outside. */
	assert_int_equal(check(child, false, &e), -ENOTSUP);
	snprintf(want, sizeof(want), "pid %d", pid);
	assert_non_null(strstr(e.text, want));
	error_clear(&e);
	assert_int_equal(check(child, true, &e), -ENOTSUP);
	end(pid, child);
}

/* A vfork that is under way ends by itself. */
static void test_vfork(void **state)
{
	(void)state;
	struct error e = ERROR_INIT;
	pid_t child, pid = start(SIGCHLD | CLONE_VM | CLONE_VFORK, &child);

	assert_int_equal(check(pid, true, &e), 0);
	end(pid, child);
}

/* Zombies, and kernel threads, have no memory to share. */
static void test_zombies(void **state)
{
	(void)state;
	struct error e = ERROR_INIT;
	pid_t pid = fork();

	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		for (int i = 0; i < 3; i++)
			if (fork() == 0)
				_exit(0);
		_exit(sleep_for_ever(NULL));
	}
	for (int i = 0; i < 20; i++, usleep(1000)) /* being made, exiting, dead */
		assert_int_equal(check(pid, true, &e), 0);
	end(pid, pid);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_copies),  cmocka_unit_test(test_in_the_tree),
		cmocka_unit_test(test_outside), cmocka_unit_test(test_vfork),
		cmocka_unit_test(test_zombies),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
