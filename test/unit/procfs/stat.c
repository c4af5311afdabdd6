/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>
#include <cmocka.h>

#include "procfs/procfs.h"

static const char tail[] =
	" S 1 22 33 34816 -1 4194560 1 2 3 4 5 6 7 8 -2 -20 3 0 301836 17301504 3413 "
	"18446744073709551615 100 200 300 0 0 0 0 16781312 2 0 0 0 17 1 99 2 0 0 0 400 500 600 "
	"700 800 900 1000 256\n";

static void test_fields(void **state)
{
	(void)state;
	static const char *const comms[] = {"sh",          "",    "a) R 1 2 3 (b", "x\ny)",
					    ") S 1 22 33", "(((", "\xff\x01"};

	for (size_t i = 0; i < sizeof(comms) / sizeof(comms[0]); i++) {
		char text[512];
		struct proc_stat s;
		struct error e = ERROR_INIT;

		snprintf(text, sizeof(text), "4711 (%s)%s", comms[i], tail);
		assert_int_equal(proc_stat_parse(text, &s, &e), 0);
		assert_int_equal(s.pid, 4711);
		assert_string_equal(s.comm, comms[i]);
		assert_int_equal(s.state, 'S');
		assert_int_equal(s.ppid, 1);
		assert_int_equal(s.session, 33);
		assert_int_equal(s.tpgid, -1);
		assert_int_equal(s.priority, -2);
		assert_int_equal(s.nice, -20);
		assert_int_equal(s.num_threads, 3);
		assert_int_equal(s.start_time, 301836);
		assert_int_equal(s.start_code, 100);
		assert_int_equal(s.exit_signal, 17);
		assert_int_equal(s.rt_priority, 99);
		assert_int_equal(s.policy, 2);
		assert_int_equal(s.start_brk, 600);
		assert_int_equal(s.env_end, 1000);
		assert_int_equal(s.exit_code, 256);
	}
}

static void test_malformed(void **state)
{
	(void)state;
	static const char *const bad[] = {
		"",
		"x",
		"1",
		"1 (",
		"1 (a",
		"1 (a)",
		"1 (a) ",
		"1 (a) S",
		"1 (a) S 1 2 3",
		"1 )a(",
		") 1 (",
		"1 ()",
		"99999999999999999999 (a) S 1",
	};

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct proc_stat s;
		struct error e = ERROR_INIT;

		assert_int_equal(proc_stat_parse(bad[i], &s, &e), -EINVAL);
	}
}

static void test_self(void **state)
{
	(void)state;
	struct proc_stat s;
	struct error e = ERROR_INIT;

	prctl(PR_SET_NAME, "n) Z\n(1 2)");
	assert_int_equal(proc_stat_read(getpid(), gettid(), &s, &e), 0);
	assert_string_equal(s.comm, "n) Z\n(1 2)");
	assert_int_equal(s.pid, getpid());
	assert_int_equal(s.ppid, getppid());
	assert_int_equal(s.session, getsid(0));
	assert_int_equal(s.state, 'R');
	assert_true(s.start_stack > s.start_brk && s.start_brk != 0);
	assert_int_equal(proc_stat_read(0x3fffff, 0, &s, &e), -ENOENT);
	assert_non_null(strstr(e.text, "4194303"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_fields),
		cmocka_unit_test(test_malformed),
		cmocka_unit_test(test_self),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
