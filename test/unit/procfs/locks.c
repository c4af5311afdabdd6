/* SPDX-License-Identifier: Apache-2.0 */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/util.h"
#include "procfs/procfs.h"

static void test_text(void **state)
{
	struct error e = ERROR_INIT;
	struct proc_lock *l;
	size_t n;

	(void)state;
	assert_int_equal(proc_locks_parse("1: POSIX  ADVISORY  WRITE 1234 08:0f:5678 100 EOF\n"
					  "1: -> POSIX  ADVISORY  READ  99 08:01:5678 0 7\n"
					  "2: OFDLCK ADVISORY  READ -1 00:1b:9 0 0\n"
					  "3: FLOCK  ADVISORY  WRITE 5 103:02:18446744073709551615 0 EOF\n"
					  "4: LEASE  BREAKING  UNLCK 7 00:1b:9 0 EOF\n"
					  "5: LEASE  ACTIVE    READ 7 00:1b:9 0 EOF\n"
					  "6: DELEG  ACTIVE    READ 0 00:1b:9 0 EOF\n",
					  false, &l, &n, &e),
			 0);
	assert_int_equal(n, 7);
	assert_true(l[0].kind == PROC_LOCK_POSIX && l[0].write && !l[0].waiting && l[0].pid == 1234 &&
		    l[0].major == 8 && l[0].minor == 15 && l[0].ino == 5678 && l[0].start == 100 &&
		    l[0].end == PROC_LOCK_EOF);
	assert_true(l[1].waiting && !l[1].write && l[1].start == 0 && l[1].end == 7);
	assert_true(l[2].kind == PROC_LOCK_OFD && l[2].pid == -1 && l[2].end == 0);
	assert_true(l[3].kind == PROC_LOCK_FLOCK && l[3].major == 0x103 && l[3].ino == UINT64_MAX);
	assert_true(l[4].kind == PROC_LOCK_LEASE && l[4].breaking && !l[5].breaking);
	assert_true(l[6].kind == PROC_LOCK_OTHER);
	free(l);
	assert_int_equal(
		proc_locks_parse("pos:\t1\nlock:\t1: POSIX  ADVISORY  WRITE 4 08:01:5 1 2\nino:\t1\n", true,
				 &l, &n, &e),
		0);
	assert_true(n == 1 && l[0].pid == 4 && l[0].start == 1 && l[0].end == 2);
	free(l);
}

static void test_malformed(void **state)
{
	static const char *const bad[] = {"1: POSIX  ADVISORY  WRITE 1234 08:01:5678 100",
					  "1: POSIX  ADVISORY  WRITE 1234 08:01 100 EOF",
					  "1: POSIX  ADVISORY  WRITE 1234 08:01:5678 9 8",
					  "1: POSIX  ADVISORY  WRITE 1234 08:01:5678 -9 8",
					  "1: NOVEL  ADVISORY  WRITE 1234 08:01:5678 0 8",
					  "POSIX  ADVISORY  WRITE 1234 08:01:5678 0 8",
					  "1: POSIX  ADVISORY  WRITE 99999999999 08:01:5678 0 8",
					  "1: POSIX  ADVISORY  WRITE 9 08:01:5678 0 8 more"};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct error e = ERROR_INIT;
		struct proc_lock *l;
		size_t n;

		assert_true(proc_locks_parse(bad[i], false, &l, &n, &e) < 0 && error_is(&e));
	}
}

static void test_own(void **state)
{
	char name[] = "/tmp/ferry-locks.XXXXXX";
	int fd = mkstemp(name);
	struct error e = ERROR_INIT;
	struct proc_lock *l;
	struct stat st;
	size_t n, found = 0;

	(void)state;
	assert_true(fd >= 0 && fstat(fd, &st) == 0 && unlink(name) == 0 && flock(fd, LOCK_EX) == 0);
	assert_int_equal(proc_locks_read(&l, &n, &e), 0);
	for (size_t i = 0; i < n; i++)
		found += l[i].kind == PROC_LOCK_FLOCK && l[i].pid == getpid() && l[i].ino == st.st_ino;
	assert_int_equal(found, 1);
	free(l);
	close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_text),
		cmocka_unit_test(test_malformed),
		cmocka_unit_test(test_own),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
