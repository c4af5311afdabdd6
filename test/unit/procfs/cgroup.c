/* SPDX-License-Identifier: Apache-2.0 */
/* Where the cgroup of this process is: it lists the process. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/util.h"
#include "procfs/procfs.h"

static bool lists_us(const char *dir)
{
	cleanup_free char *path = xasprintf("%s/cgroup.procs", dir), *text = NULL;
	char *save = NULL;

	assert_true(read_file(path, &text) >= 0);
	for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save))
		if (atoi(line) == getpid())
			return true;
	return false;
}

static void test_our_own(void **state)
{
	static const char *const controllers[] = {"", "cpu", "cpu,cpuacct", "memory", "name=systemd"};
	int found = 0;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(controllers); i++) {
		cleanup_free char *path = proc_cgroup_path(getpid(), controllers[i]);
		cleanup_free char *dir = path ? proc_cgroup_dir(controllers[i], path) : NULL;

		if (!dir)
			continue;
		found++;
		assert_true(dir[strlen(dir) - 1] != '/');
		assert_true(lists_us(dir));
	}
	if (!found)
		skip();
}

static void test_none(void **state)
{
	(void)state;
	assert_null(proc_cgroup_path(getpid(), "no-such-controller"));
	assert_null(proc_cgroup_dir("no-such-controller", "/"));
	assert_null(proc_cgroup_path(0x7fffffff, "cpu"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_our_own), cmocka_unit_test(test_none)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
