/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <cmocka.h>

#include "base/util.h"
#include "procfs/procfs.h"

static void test_text(void **state)
{
	struct error e = ERROR_INIT;
	struct proc_mounts m;

	(void)state;
	assert_int_equal(
		proc_mounts_parse("36 35 98:0 /a\\040b /mnt\\134x rw,noatime shared:1 - ext4 /dev/sda rw\n"
				  "37 36 0:25 / / rw - tmpfs tmpfs rw\n",
				  &m, &e),
		0);
	assert_int_equal(m.n, 2);
	assert_true(m.v[0].id == 36 && m.v[0].major == 98 && m.v[0].minor == 0);
	assert_string_equal(m.v[0].root, "/a b");
	assert_string_equal(m.v[0].point, "/mnt\\x");
	assert_true(m.v[1].minor == 25 && !strcmp(m.v[1].point, "/"));
	assert_string_equal(m.v[0].type, "ext4");
	assert_string_equal(m.v[0].options, "rw");
	assert_string_equal(m.v[1].type, "tmpfs");
	proc_mounts_deinit(&m);
}

static void test_malformed(void **state)
{
	static const char *const bad[] = {"36 35 98:0 /a",
					  "36 35 98 /a /b rw",
					  "x 35 98:0 /a /b rw",
					  "36 35 98:0  /b rw",
					  "99999999999 1 1:1 / / rw",
					  "\n",
					  "36 35 98:0 /a /b rw shared:1",
					  "36 35 98:0 /a /b rw - ext4",
					  "36 35 98:0 /a /b rw x- ext4 /dev/sda rw"};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct error e = ERROR_INIT;
		struct proc_mounts m;

		assert_true(proc_mounts_parse(bad[i], &m, &e) < 0 && error_is(&e));
		assert_true(!m.v && !m.n);
	}
}

static void test_own(void **state)
{
	struct error e = ERROR_INIT;
	struct proc_mounts m;
	struct stat st;
	bool found = false;

	(void)state;
	assert_true(stat("/proc", &st) == 0 && proc_mounts_read(&m, &e) == 0);
	for (size_t i = 0; i < m.n; i++)
		found = found || (!strcmp(m.v[i].point, "/proc") && m.v[i].major == major(st.st_dev) &&
				  m.v[i].minor == minor(st.st_dev));
	assert_true(found);
	proc_mounts_deinit(&m);
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
