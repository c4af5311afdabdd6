/* SPDX-License-Identifier: Apache-2.0 */
/* What a backend costs is measured with a child of ours, which is gone afterwards. */
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/util.h"
#include "track/measure.h"

static char top[PATH_MAX];

static int open_descriptors(void)
{
	int n = 0;

	for (int fd = 0; fd < 256; fd++)
		n += fcntl(fd, F_GETFD) >= 0;
	return n;
}

static void measure(const char *name, bool compares)
{
	cleanup_free char *dir = xasprintf("%s/backends", top);
	struct backend b;
	struct backend_cost c = {0};
	struct error e = ERROR_INIT;

	if (backend_open(name, dir, &b, NULL, &e) < 0) {
		print_message("skipped: %s\n", e.text);
		return;
	}
	int before = open_descriptors();

	if (backend_measure(&b, &c, &e) < 0)
		fail_msg("%s: %s", name, e.text);
	print_message(
		"%s: a round %.1f ms/GiB, all written %.1f, frozen %.1f; first store %llu ns, stop %llu ns\n",
		name, c.round_ns_gib / 1e6, c.dirty_ns_gib / 1e6, c.final_ns_gib / 1e6,
		(unsigned long long)c.store_ns, (unsigned long long)c.stop_ns);
	assert_true(c.round_ns_gib > 0 && c.final_ns_gib > 0 && c.dirty_ns_gib > 0);
	/* Reading all of the memory takes its time; so does a stop. */
	if (compares)
		assert_true(c.round_ns_gib > 10000000);
	assert_int_equal(c.stop_ns != 0, !(b.ops->caps & DIRTY_CAP_RUNNING));
	assert_int_equal(open_descriptors(), before);
	assert_int_equal(waitpid(-1, NULL, __WALL | WNOHANG), -1);
	assert_int_equal(errno, ECHILD);
	backend_close(&b);
}

static void test_all(void **state)
{
	(void)state;
	measure("uffd-wp", false);
	measure("soft-dirty", false);
	measure("rescan", true);
}

/* A plugin that works but cannot be attached: its own words. */
static void test_failure(void **state)
{
	(void)state;
	cleanup_free char *dir = xasprintf("%s/test-backends", top);
	struct backend b;
	struct backend_cost c = {.store_ns = 4711};
	struct error e = ERROR_INIT;

	assert_int_equal(backend_open("good", dir, &b, NULL, &e), 0);
	assert_int_equal(backend_measure(&b, &c, &e), -EOPNOTSUPP);
	assert_string_equal(e.text, "for tests only");
	assert_int_equal(c.store_ns, 4711);
	assert_int_equal(waitpid(-1, NULL, __WALL | WNOHANG), -1);
	backend_close(&b);
}

static void test_crash(void **state)
{
	(void)state;
	static const char *const names[] = {"crash-attach", "crash-collect", "hang-collect"};
	static const char *const words[] = {"crashed in attach()", "crashed in collect()",
					    "did not come back from collect() within"};

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		cleanup_free char *dir =
			xasprintf("%s/test-backends%s", top, names[i][0] == 'h' ? "-hang" : "");
		struct backend b;
		struct backend_cost c;
		struct error e = ERROR_INIT;

		assert_int_equal(backend_open(names[i], dir, &b, NULL, &e), 0);
		assert_int_equal(backend_measure(&b, &c, &e), -ENOEXEC);
		assert_non_null(strstr(e.text, names[i]));
		assert_non_null(strstr(e.text, words[i]));
		assert_int_equal(waitpid(-1, NULL, __WALL | WNOHANG), -1);
		backend_close(&b);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_all),
		cmocka_unit_test(test_failure),
		cmocka_unit_test(test_crash),
	};
	ssize_t n = readlink("/proc/self/exe", top, sizeof(top) - 1);

	if (n < 0)
		return 1;
	top[n] = 0;
	if (!dirname(dirname(top)))
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
