/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/util.h"
#include "cli/draw.h"
#include "cli/svg.h"

static char *drawn(const struct svg_plot *p)
{
	static char *text;
	static size_t n;
	FILE *f = open_memstream(&text, &n);

	assert_true(svg_write(f, p));
	fclose(f);
	return text;
}

/* Every element is closed, no bare & or < in the text, no number that is none. */
static void well_formed(const char *s)
{
	int depth = 0;

	for (; *s; s++) {
		if (*s == '&')
			assert_true(!strncmp(s, "&lt;", 4) || !strncmp(s, "&gt;", 4) ||
				    !strncmp(s, "&amp;", 5));
		if (*s != '<')
			continue;
		const char *end = strchr(s, '>');

		assert_non_null(end);
		assert_null(memchr(s + 1, '<', end - s - 1));
		depth += s[1] == '/' ? -1 : end[-1] == '/' ? 0 : 1;
		assert_true(depth > 0 || !strcmp(end, ">\n"));
		s = end;
	}
	assert_int_equal(depth, 0);
}

static size_t count(const char *s, const char *what)
{
	size_t n = 0;

	for (s = strstr(s, what); s; s = strstr(s + 1, what))
		n++;
	return n;
}

static void shows_all(void **state)
{
	struct svg_sample v[10];

	(void)state;
	for (int i = 0; i < 10; i++)
		v[i] = (struct svg_sample){i + 1, 1, i == 5 ? 0 : 10 + i, 10 * (i + 1), 3 + i % 2, 7.5};
	struct svg_plot p = {"a <b> & \"c\"\n (pid 7)", "note & <more>", 50, v, 10};
	cleanup_free char *s = drawn(&p);

	well_formed(s);
	assert_non_null(strstr(s, "a &lt;b&gt; &amp; \"c\"? (pid 7)</text>"));
	assert_non_null(strstr(s, "note &amp; &lt;more&gt;"));
	assert_non_null(strstr(s, "MiB written per interval"));
	assert_non_null(strstr(s, "working set, MiB"));
	assert_non_null(strstr(s, "downtime, ms"));
	assert_non_null(strstr(s, "seconds since the beginning"));
	assert_non_null(strstr(s, "wanted: at most 50 ms"));
	/* One bar for each interval in which something was written. */
	assert_int_equal(count(strstr(s, "<path fill=\"#a9c6e3\""), "Z"), 9);
	assert_null(strstr(s, "nan"));
	assert_null(strstr(s, "inf"));
}

static void edges(void **state)
{
	struct svg_sample one = {0.01, 0.01, 0, 0, 2, 0};
	struct svg_plot empty = {"", "", 0, NULL, 0}, single = {"x", "", 0, &one, 1};
	cleanup_free char *a = drawn(&empty), *b = drawn(&single);

	(void)state;
	well_formed(a);
	well_formed(b);
	assert_null(strstr(a, "nan"));
	assert_null(strstr(b, "nan"));
	assert_null(strstr(b, "wanted"));
}

/* A day at 10 ms: not millions of shapes, and the one peak is still there. */
static void many_samples(void **state)
{
	size_t n = 1000000;
	struct svg_sample *v = xcalloc(n, sizeof(*v));

	(void)state;
	for (size_t i = 0; i < n; i++)
		v[i] = (struct svg_sample){(i + 1) * 0.01, 0.01, i == 777777 ? 500 : 1, 100, 2, 1};
	struct svg_plot p = {"x", "", 0, v, n};
	cleanup_free char *s = drawn(&p);

	well_formed(s);
	assert_true(strlen(s) < 200000);
	/* The axis ends at the peak, so its bar reaches the top of the panel. */
	assert_non_null(strstr(strstr(s, "<path fill=\"#a9c6e3\""), " 350V86.0H"));
	free(v);
}

static void steps(void **state)
{
	static const struct {
		double max, step;
	} cases[] = {{1, 0.2},  {6, 1},        {7, 2},       {13, 5}, {50, 10},
		     {100, 20}, {0.03, 0.005}, {4096, 1000}, {31, 10}};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		double s = draw_step(cases[i].max, 6);

		assert_true(s > cases[i].step * 0.999 && s < cases[i].step * 1.001);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(shows_all),
		cmocka_unit_test(edges),
		cmocka_unit_test(many_samples),
		cmocka_unit_test(steps),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
