/* SPDX-License-Identifier: Apache-2.0 */
/* The loader against plugins with one defect each (test/plugins), and files that are no plugins at all. */
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/util.h"
#include "track/backend.h"

static char plugins[PATH_MAX], scratch[64];

static int setup(void **state)
{
	(void)state;
	char exe[PATH_MAX];
	ssize_t n = readlink("/proc/self/exe", exe, sizeof(exe) - 32);

	if (n < 0)
		return -1;
	exe[n] = 0;
	snprintf(plugins, sizeof(plugins), "%.4000s/test-backends", dirname(dirname(exe)));
	strcpy(scratch, "/tmp/ferry-unit-XXXXXX");
	return mkdtemp(scratch) ? 0 : -1;
}

static int teardown(void **state)
{
	(void)state;
	static const char *const names[] = {"empty", "text", "cut", "head", "fifo", "good", "refuses"};

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		cleanup_free char *path = xasprintf("%s/%s.so", scratch, names[i]);

		unlink(path);
	}
	return rmdir(scratch);
}

static void refused(const char *dir, const char *name, int code, const char *reason)
{
	struct backend b = {0};
	struct error e = ERROR_INIT;
	char *why;

	assert_int_equal(backend_open(name, dir, &b, &why, &e), -code);
	assert_null(why);
	assert_null(b.handle);
	if (!strstr(e.text, reason) || !strstr(e.text, name))
		fail_msg("%s: \"%s\" does not say \"%s\"", name, e.text, reason);
}

static void test_defects(void **state)
{
	(void)state;
	refused(plugins, "no-export", ENOEXEC, "does not export ferry_dirty_backend()");
	refused(plugins, "null", ENOEXEC, "returned NULL");
	refused(plugins, "abi", ENOEXEC, "(4711, need 5)");
	refused(plugins, "old-abi", ENOEXEC, "(1, need 5)");
	refused(plugins, "unresolved", ENOEXEC, "ferry_no_such_function");
	refused(plugins, "small", ENOEXEC, "too small");
	refused(plugins, "no-name", ENOEXEC, "no name");
	refused(plugins, "other-name", ENOEXEC, "name is not that");
	refused(plugins, "no-kinds", ENOEXEC, "no kind of memory");
	refused(plugins, "no-begin", ENOEXEC, "no begin()");
	refused(plugins, "no-end", ENOEXEC, "no end()");
	refused(plugins, "no-probe", ENOEXEC, "no probe()");
	refused(plugins, "no-attach", ENOEXEC, "no attach()");
	refused(plugins, "no-arm", ENOEXEC, "no arm()");
	refused(plugins, "no-collect", ENOEXEC, "no collect()");
	refused(plugins, "no-detach", ENOEXEC, "no detach()");
	refused(plugins, "refuses", EOPNOTSUPP, "does not work here: it never works");
	refused(plugins, "bad-probe", ENOEXEC, "returned 7");
	refused(plugins, "crash-load", ENOEXEC, "crashed in its loading (signal 6");
	refused(plugins, "crash-probe", ENOEXEC, "crashed in probe()");
	refused(plugins, "exit-probe", ENOEXEC, "ended the process that called it in probe() (code 3)");
	refused(plugins, "missing", ENOENT, "cannot be opened");
	refused(plugins, "../x", EINVAL, "not the name");
	refused(plugins, "", EINVAL, "not the name");
	refused("/nonexistent", "good", ENOENT, "/nonexistent/good.so");
}

/* One that also closes what it could answer with: it looks as if it had ended. */
static void test_hangs(void **state)
{
	(void)state;
	cleanup_free char *dir = xasprintf("%s-hang", plugins);

	refused(dir, "hang-probe", ENOEXEC, "did not come back from probe() within");
	refused(dir, "hang-closed", ENOEXEC, "did not come back from probe() within");
}

static void put(const char *name, const void *data, size_t size)
{
	cleanup_free char *path = xasprintf("%s/%s.so", scratch, name);
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0755);

	assert_true(fd >= 0);
	assert_int_equal(write_full(fd, data, size), 0);
	close(fd);
}

static void test_files_that_are_no_plugins(void **state)
{
	(void)state;
	cleanup_free char *path = xasprintf("%s/good.so", plugins), *data = NULL;
	cleanup_free char *fifo = xasprintf("%s/fifo.so", scratch);
	ssize_t n = read_file(path, &data);

	assert_true(n > 4096);
	put("empty", "", 0);
	put("text",
	    "#!/bin/sh\nexit 0 and some more bytes so that it is longer than a header of an object file", 80);
	put("cut", data, 4096 + 100);
	put("head", data, 100);
	assert_int_equal(mkfifo(fifo, 0700), 0);
	refused(scratch, "empty", ENOEXEC, "not a shared object");
	refused(scratch, "text", ENOEXEC, "not a shared object");
	refused(scratch, "cut", ENOEXEC, "cut short");
	refused(scratch, "head", ENOEXEC, "cut short");
	refused(scratch, "fifo", ENOEXEC, "not a regular file");
}

static void test_choice(void **state)
{
	(void)state;
	struct backend b;
	struct error e = ERROR_INIT;
	char *why;

	assert_int_equal(backend_open("good", plugins, &b, &why, &e), 0);
	assert_string_equal(b.ops->name, "good");
	backend_close(&b);
	assert_int_equal(backend_open("large", plugins, &b, &why, &e), 0);
	backend_close(&b);
	assert_int_equal(backend_open("auto", plugins, &b, &why, &e), 0);
	assert_string_equal(b.ops->name, "better");
	backend_close(&b);
	assert_int_equal(backend_open("none", plugins, &b, &why, &e), 1);
	assert_non_null(why);
	free(why);
	cleanup_free char *path = xasprintf("%s/refuses.so", plugins), *data = NULL;
	ssize_t n = read_file(path, &data);

	put("refuses", data, (size_t)n);
	assert_int_equal(backend_open("auto", scratch, &b, &why, &e), 1);
	assert_non_null(strstr(why, "refuses: it never works"));
	assert_non_null(strstr(why, "cut: "));
	free(why);
	assert_false(error_is(&e));
}

static void test_list(void **state)
{
	(void)state;
	struct backend_info *v;
	struct error e = ERROR_INIT;
	size_t n, usable = 0;

	assert_int_equal(backend_list(plugins, &v, &n, &e), 0);
	assert_int_equal(n, 27);
	for (size_t i = 0; i < n; i++) {
		assert_true(i == 0 || strcmp(v[i - 1].name, v[i].name) < 0);
		usable += v[i].usable == 0;
		assert_true(v[i].usable == 0 || v[i].why[0]);
	}
	assert_int_equal(usable, 6);
	free(v);
	assert_int_equal(backend_list("/nonexistent", &v, &n, &e), -ENOENT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_defects),
		cmocka_unit_test(test_hangs),
		cmocka_unit_test(test_files_that_are_no_plugins),
		cmocka_unit_test(test_choice),
		cmocka_unit_test(test_list),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
