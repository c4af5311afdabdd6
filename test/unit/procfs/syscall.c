/* SPDX-License-Identifier: Apache-2.0 */
/* What a thread is blocked in, and its time in user mode. */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <cmocka.h>

#include "base/util.h"
#include "procfs/procfs.h"

static void test_parse(void **state)
{
	long nr = 7;

	(void)state;
	assert_int_equal(proc_syscall_parse("running\n", &nr), -EAGAIN);
	assert_int_equal(nr, 7);
	assert_int_equal(proc_syscall_parse("310 0x1 0x2 0x3 0x4 0x5 0x6 0x7ffd 0x7f00\n", &nr), 0);
	assert_int_equal(nr, 310);
	assert_int_equal(proc_syscall_parse("-1 0x7ffd 0x7f00\n", &nr), 0);
	assert_int_equal(nr, PROC_NO_CALL);
	assert_int_equal(proc_syscall_parse("", &nr), -EINVAL);
	assert_int_equal(proc_syscall_parse("0x5 1\n", &nr), -EINVAL);
	assert_int_equal(proc_syscall_parse("99999999999999999999 0x0\n", &nr), -EINVAL);
}

static void test_live(void **state)
{
	pid_t child = fork();
	long nr = 0;
	int r;

	(void)state;
	if (child == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		for (;;)
			pause();
	}
	do { /* till it is there */
		r = proc_syscall_read(child, child, &nr);
		assert_true(r == 0 || r == -EAGAIN);
	} while (r || nr != SYS_pause);
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
	assert_int_equal(proc_syscall_read(child, child, &nr), -ENOENT);
}

/* It grows with what is spent in user mode. */
static void test_user_time(void **state)
{
	struct user_times u;
	uint64_t before, now;

	(void)state;
	if (user_times_open(&u) < 0 || user_time(&u, gettid(), &before) < 0) {
		user_times_close(&u);
		skip();
	}
	do {
		for (volatile int i = 0; i < 1000000; i++)
			;
		assert_int_equal(user_time(&u, gettid(), &now), 0);
		assert_true(now >= before);
	} while (now == before);
	assert_int_equal(user_time(&u, -1, &now), -ESRCH);
	user_times_close(&u);
	assert_true(user_time(&u, gettid(), &now) < 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_parse),
		cmocka_unit_test(test_live),
		cmocka_unit_test(test_user_time),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
