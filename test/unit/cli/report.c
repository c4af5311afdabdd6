/* SPDX-License-Identifier: Apache-2.0 */
/* Reports: what goes in comes out, whatever a name holds; only the newest are kept, and no other file is
 * touched. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/util.h"
#include "cli/report.h"
#include "service/msg.h"

static char root[] = "/tmp/ferry-report.XXXXXX";

static void event(struct report *r, const char *format, const char *name, long long n)
{
	json_t *j =
		json_pack(format, "event", name, "bytes", (json_int_t)n, "ms", 5.0, "n", 1, "level", (int)n);

	assert_non_null(j);
	report_event(r, j);
	json_decref(j);
}

#define FORMAT "{s:s,s:I,s:f,s:i,s:i}"

static char *drawn(bool (*draw)(FILE *, const json_t *), const json_t *j)
{
	char *text = NULL;
	size_t n = 0;
	FILE *f = open_memstream(&text, &n);

	assert_true(draw(f, j));
	fclose(f);
	return text;
}

static void test_round_trip(void **state)
{
	(void)state;
	cleanup_free char *dir = xasprintf("%s/a/b", root);
	struct error e = ERROR_INIT;
	struct report *r = report_new("<evil> & \"x\" (pid 7)", 7, "there");
	const char *id;
	struct stat st;

	event(r, FORMAT, "round", 4096 << 10);
	event(r, FORMAT, "log", 4); /* debug: not kept */
	event(r, FORMAT, "log", 1);
	event(r, FORMAT, "round", 8192);
	assert_int_equal(report_write(r, dir, "it <said> no", &id, &e), 0);
	cleanup_free char *name = xstrdup(id), *path = xasprintf("%s/%s.json", dir, name);

	report_free(r);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	json_t *j = report_read(dir, name, &e), *list = report_list(dir);

	assert_non_null(j);
	assert_int_equal(json_array_size(list), 1);
	assert_string_equal(json_string_value(json_array_get(list, 0)), name);
	assert_int_equal(json_array_size(json_object_get(j, "events")), 3);
	assert_false(json_is_true(json_object_get(j, "moved")));
	assert_string_equal(msg_str(j, "failure", ""), "it <said> no");
	cleanup_free char *svg = drawn(report_svg, j), *html = drawn(report_html, j);

	assert_non_null(strstr(svg, "&lt;evil&gt; &amp;"));
	assert_null(strstr(svg, "<evil>"));
	assert_null(strstr(html, "<said>"));
	assert_non_null(strstr(html, "</html>"));
	json_decref(j);
	json_decref(list);
}

static void touch(const char *dir, const char *name, const char *text)
{
	cleanup_free char *path = xasprintf("%s/%s", dir, name);
	FILE *f = fopen(path, "w");

	assert_non_null(f);
	fputs(text, f);
	fclose(f);
}

static void test_oldest_go(void **state)
{
	(void)state;
	cleanup_free char *dir = xasprintf("%s/many", root);
	struct error e = ERROR_INIT;
	struct report *r = report_new("p", 7, "there");
	const char *id;

	assert_int_equal(mkdir(dir, 0700), 0);
	touch(dir, "notes.json", "mine");
	for (int i = 0; i < REPORT_KEEP + 5; i++) {
		cleanup_free char *name = xasprintf("19990101-%06d-1.json", i);

		touch(dir, name, "{}");
	}
	assert_int_equal(report_write(r, dir, NULL, &id, &e), 0);
	json_t *list = report_list(dir);

	assert_int_equal(json_array_size(list), REPORT_KEEP);
	assert_string_equal(json_string_value(json_array_get(list, 0)), id);
	assert_string_equal(json_string_value(json_array_get(list, REPORT_KEEP - 1)), "19990101-000006-1");
	json_decref(list);
	report_free(r);
	cleanup_free char *notes = xasprintf("%s/notes.json", dir);

	assert_int_equal(access(notes, F_OK), 0);
}

static void test_bad_files(void **state)
{
	(void)state;
	static const char *const ids[] = {"", "..", "../a/b/20000101-000000-1", "20000101-000000-1/x",
					  "20000101x000000-1"};
	static const char *const texts[] = {"", "[1]", "{\"version\":1}", "{\"version\":2,\"events\":[]}",
					    "{\"events\":[]"};
	struct error e = ERROR_INIT;

	for (size_t i = 0; i < ARRAY_SIZE(ids); i++) {
		error_clear(&e);
		assert_null(report_read(root, ids[i], &e));
		assert_int_equal(e.code, EINVAL);
	}
	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		touch(root, "20000101-000000-1.json", texts[i]);
		error_clear(&e);
		assert_null(report_read(root, "20000101-000000-1", &e));
		assert_int_equal(e.code, EINVAL);
	}
	/* Events of any form are drawn, somehow. */
	touch(root, "20000101-000000-1.json",
	      "{\"version\":1,\"events\":[1,{},{\"event\":7},{\"event\":\"round\",\"bytes\":\"x\",\"ms\":-5},"
	      "{\"event\":\"done\",\"downtime_ms\":0,\"phases\":{\"a\":1,\"b_ms\":\"x\"}}]}");
	error_clear(&e);
	json_t *j = report_read(root, "20000101-000000-1", &e);

	assert_non_null(j);
	free(drawn(report_html, j));
	json_decref(j);
	assert_int_equal(json_array_size(j = report_list("/nowhere")), 0);
	json_decref(j);
}

static void test_no_directory(void **state)
{
	(void)state;
	struct error e = ERROR_INIT;
	struct report *r = report_new("p", 7, "there");
	const char *id;

	assert_true(report_write(r, "/proc/nowhere", NULL, &id, &e) < 0);
	assert_non_null(strstr(e.text, "/proc/nowhere"));
	report_free(r);
}

static int make_root(void **state)
{
	(void)state;
	return mkdtemp(root) ? 0 : -1;
}

static int remove_root(void **state)
{
	(void)state;
	cleanup_free char *command = xasprintf("rm -rf %s", root);

	return system(command);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_oldest_go),
		cmocka_unit_test(test_bad_files),
		cmocka_unit_test(test_no_directory),
	};

	return cmocka_run_group_tests(tests, make_root, remove_root);
}
