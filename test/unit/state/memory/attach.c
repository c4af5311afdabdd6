/* SPDX-License-Identifier: Apache-2.0 */
/* The memory that is open is that of the program that runs: not the one before an exec, nor a vfork's
 * parent's. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/util.h"
#include "freeze/tree.h"
#include "state/memory/memory.h"

static int to_child[2];
static char *const cat[] = {"cat", NULL};

static _Noreturn void child(void)
{
	char c;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (read(to_child[0], &c, 1) != 1 || dup2(to_child[0], 0) < 0)
		_exit(1);
	execvp("cat", cat);
	_exit(1);
}

static bool runs_cat(pid_t pid)
{
	cleanup_free char *path = xasprintf("/proc/%d/comm", pid), *comm = NULL;

	return read_file(path, &comm) > 0 && !strcmp(comm, "cat\n");
}

static void test_exec(void **state)
{
	(void)state;
	struct memory *m = memory_new();
	struct error e = ERROR_INIT;

	assert_int_equal(pipe(to_child), 0);
	struct process p = {.pid = fork(), .pidfd = -1};

	if (p.pid == 0)
		child();
	assert_int_equal(memory_attach(m, &p, &e), 0);
	assert_true(memory_same_program(p.data));
	assert_true(memory_same_program(p.data));
	assert_int_equal(write(to_child[1], "x", 1), 1);
	while (!runs_cat(p.pid))
		usleep(1000);
	assert_false(memory_same_program(p.data));
	assert_false(memory_same_program(p.data)); /* asking changes nothing */
	memory_detach(m, &p);
	assert_int_equal(memory_attach(m, &p, &e), 0);
	assert_true(memory_same_program(p.data));
	memory_detach(m, &p);
	kill(p.pid, SIGKILL);
	waitpid(p.pid, NULL, 0);
	memory_free(m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_exec)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
