/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "base/util.h"
#include "service/options.h"

struct values {
	bool flag, other;
	int64_t number, level, time;
	uint64_t size;
	char *text, *mode;
	struct opt_list list;
};
#define AT(m) offsetof(struct values, m)
static const struct opt rows[] = {
	{"flag", 'f', OPT_FLAG, 0, 0, AT(flag), NULL, NULL, 0, 0, NULL, "a flag"},
	{"number", 'n', OPT_INT, 0, 0, AT(number), "N", "7", 1, 100, "s", "a number"},
	{"size", 0, OPT_SIZE, 0, 0, AT(size), "SIZE", "1M", 0, 0, NULL, "a size"},
	{"time", 0, OPT_TIME, 0, 0, AT(time), "TIME", "1s", 10, 3600000, NULL, "a time"},
	{"text", 't', OPT_STRING, 0, 0, AT(text), "TEXT", "hello", 0, 0, NULL, "a text"},
	{"mode", 0, OPT_MODE, 0, 0, AT(mode), "MODE", NULL, 0, 0, NULL, "a mode"},
	{"list", 0, OPT_LIST, 0, 0, AT(list), "X", NULL, 0, 0, NULL, "a list"},
	{"verbosity", 'v', OPT_LEVEL, 0, 0, AT(level), "LEVEL", "2", 0, 4, NULL, "a level"},
	{"other", 0, OPT_FLAG, 0, 2, AT(other), NULL, NULL, 0, 0, NULL, "of another verb"},
	{"loose", 0, OPT_FLAG, OPT_COMPAT, 2, AT(other), NULL, NULL, 0, 0, NULL,
	 "of another verb, but let through"},
	{"typed", 0, OPT_FLAG, OPT_COMMAND, 0, AT(other), NULL, NULL, 0, 0, NULL, "not in files"},
	{"later", 0, OPT_FLAG, OPT_UNSUPPORTED, 0, 0, NULL, NULL, 0, 0, NULL, NULL},
	{"shrug", 0, OPT_STRING, OPT_ACCEPTED, 0, 0, NULL, NULL, 0, 0, NULL, NULL},
};
static const struct opt_table table = {rows, ARRAY_SIZE(rows), sizeof(struct values)};

#define PARSE(v, e, ...) parse(v, e, (const char *[]){"verb", __VA_ARGS__, NULL})
static int operand;
static int parse(struct values *v, struct error *e, const char **words)
{
	char *argv[16];
	int argc = 0, r;

	for (; words[argc]; argc++)
		argv[argc] = (char *)words[argc];
	argv[argc] = NULL;
	error_clear(e);
	options_init(&table, v);
	r = options_parse_argv(&table, 1, "verb", argc, argv, v, &operand, e);
	return r;
}

static void defaults_and_forms(void **state)
{
	struct error e;
	struct values v;

	(void)state;
	assert_int_equal(PARSE(&v, &e, "-f"), 0);
	assert_true(v.flag);
	assert_int_equal(v.number, 7);
	assert_int_equal(v.size, 1 << 20);
	assert_string_equal(v.text, "hello");
	assert_null(v.mode);
	options_deinit(&table, &v);

	assert_int_equal(PARSE(&v, &e, "--number=9", "--text", "a b", "op", "--mode", "--list", "x",
			       "--list=y", "--size", "2k"),
			 0);
	assert_int_equal(v.number, 9);
	assert_string_equal(v.text, "a b");
	assert_string_equal(v.mode, "");
	assert_int_equal(v.list.n, 2);
	assert_string_equal(v.list.v[1], "y");
	assert_int_equal(v.size, 2048);
	assert_int_equal(operand, 8 + 2); /* behind all options: argv is permuted */
	options_deinit(&table, &v);

	assert_int_equal(PARSE(&v, &e, "-n5", "--mode=full", "--", "-f"), 0);
	assert_string_equal(v.mode, "full");
	assert_false(v.flag);
	assert_int_equal(operand, 4);
	options_deinit(&table, &v);
}

static void times(void **state)
{
	static const struct {
		const char *word;
		int64_t ms; /* -1: refused */
	} cases[] = {{"2", 2000},     {"1.5s", 1500}, {"250ms", 250}, {"3m", 180000},
		     {"1h", 3600000}, {"10ms", 10},   {"9ms", -1},    {"2h", -1},
		     {"", -1},        {"s", -1},      {"-1s", -1},    {"1 s", -1},
		     {"nan", -1},     {"1e99", -1},   {"5x", -1},     {"1sm", -1}};
	struct error e;
	struct values v;

	(void)state;
	assert_int_equal(PARSE(&v, &e, "-f"), 0);
	assert_int_equal(v.time, 1000);
	options_deinit(&table, &v);
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		int r = PARSE(&v, &e, "--time", cases[i].word);

		assert_int_equal(r, cases[i].ms < 0 ? -EINVAL : 0);
		if (cases[i].ms >= 0)
			assert_int_equal(v.time, cases[i].ms);
		else
			assert_non_null(strstr(e.text, "--time takes a time such as"));
		options_deinit(&table, &v);
	}
}

static void verbosity(void **state)
{
	static const struct {
		const char *word;
		int level;
	} cases[] = {{"-v", 3},           {"-vv", 4},          {"-vvvv", 4},       {"-v0", 0},
		     {"-v4", 4},          {"-v=1", 1},         {"--verbosity", 3}, {"--verbosity=0", 0},
		     {"-verbosity=0", 0}, {"-verbosity=4", 4}, {"-vx", -1},        {"-v9", -1}};
	struct error e;
	struct values v;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		int r = PARSE(&v, &e, cases[i].word);

		if (cases[i].level < 0)
			assert_int_equal(r, -EINVAL);
		else
			assert_int_equal(v.level, cases[i].level);
		options_deinit(&table, &v);
	}
}

static void refused(struct error *e, const char *text, int code, int r)
{
	assert_int_equal(r, -code);
	assert_non_null(strstr(e->text, text));
}

static void mistakes(void **state)
{
	struct error e;
	struct values v;

	(void)state;
	refused(&e, "from 1 to 100 s, not \"0\"", EINVAL, PARSE(&v, &e, "-n0", "-f"));
	assert_true(v.flag); /* what follows a mistake is read all the same */
	options_deinit(&table, &v);
	static const struct {
		const char *a, *b, *text;
		int code;
	} cases[] = {
		{"-n", "12x", "not \"12x\"", EINVAL},
		{"--size", "5Q", "takes a size", EINVAL},
		{"--size", "-1", "takes a size", EINVAL},
		{"--size", "99999999999999T", "takes a size", EINVAL},
		{"--wrong", "-f", "--wrong is not an option", EINVAL},
		{"-Q", "-f", "-Q is not an option", EINVAL},
		{"-f", "--text", "--text needs an argument", EINVAL},
		{"--other", "-f", "--other is not an option of verb", EINVAL},
		{"--later", "-f", "--later is not supported yet", ENOTSUP},
	};
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		refused(&e, cases[i].text, cases[i].code, PARSE(&v, &e, cases[i].a, cases[i].b));
		options_deinit(&table, &v);
	}
	assert_int_equal(PARSE(&v, &e, "--loose", "--shrug", "x"), 0);
	assert_false(v.other);
	options_deinit(&table, &v);
}

static int from_text(struct values *v, const char *text, struct error *e)
{
	char *copy = xstrdup(text);

	error_clear(e);
	options_init(&table, v);
	int r = options_parse_text(&table, 1, "file.conf", copy, v, e);

	free(copy);
	return r;
}

static void files(void **state)
{
	struct error e;
	struct values v;

	(void)state;
	assert_int_equal(
		from_text(&v,
			  "# all forms\n\n  flag\nnumber 12   # twelve\r\nsize=4K\ntext = \"a # b\"\nlist x\n"
			  "list  y z \nother\nmode",
			  &e),
		0);
	assert_true(v.flag);
	assert_int_equal(v.number, 12);
	assert_int_equal(v.size, 4096);
	assert_string_equal(v.text, "a # b");
	assert_int_equal(v.list.n, 2);
	assert_string_equal(v.list.v[1], "y z");
	assert_false(v.other); /* belongs to another verb: skipped */
	assert_string_equal(v.mode, "");
	options_deinit(&table, &v);

	static const struct {
		const char *text, *why;
	} cases[] = {
		{"flag\nnumber 0\n", "file.conf, line 2: --number"},
		{"wrong 1", "line 1: wrong is not an option"},
		{"flag yes", "flag takes no value"},
		{"text", "text needs a value"},
		{"typed", "cannot be set in a configuration file"},
		{"later", "not supported yet"},
	};
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		assert_true(from_text(&v, cases[i].text, &e) < 0);
		assert_non_null(strstr(e.text, cases[i].why));
		options_deinit(&table, &v);
	}
	options_init(&table, &v);
	error_clear(&e);
	assert_int_equal(options_parse_file(&table, 1, "/nonexistent/x", true, &v, &e), 0);
	assert_int_equal(options_parse_file(&table, 1, "/nonexistent/x", false, &v, &e), -ENOENT);
	options_deinit(&table, &v);
}

static void usage(void **state)
{
	char *text = NULL;
	size_t n;
	FILE *f = open_memstream(&text, &n);

	(void)state;
	options_usage(&table, 1, f);
	fclose(f);
	assert_non_null(strstr(text, "-n, --number N"));
	assert_non_null(strstr(text, "(default 7 s)"));
	assert_non_null(strstr(text, "--mode[=MODE]"));
	assert_null(strstr(text, "--other"));
	assert_null(strstr(text, "--later"));
	free(text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(defaults_and_forms), cmocka_unit_test(times), cmocka_unit_test(verbosity),
		cmocka_unit_test(mistakes),           cmocka_unit_test(files), cmocka_unit_test(usage),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
