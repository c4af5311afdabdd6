/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "service/errands.h"

/* @text: a JSON array. The arguments joined by blanks, or "" for a refusal. */
static void takes(const char *text, const char *want)
{
	struct error e = ERROR_INIT;
	json_t *list = json_loads(text, 0, NULL);
	char **args = errand_args(list, 1000, "/k", NULL, &e), got[512] = "";

	for (size_t i = 0; args && args[i]; i++) {
		strcat(got, i ? " " : "");
		strcat(got, args[i]);
	}
	assert_string_equal(got, want);
	assert_int_equal(error_is(&e), !*want);
	errand_args_free(args);
	json_decref(list);
}

static void test_allowed(void **state)
{
	(void)state;
	takes("[\"status\"]", "status --owner=1000");
	takes("[\"cancel\",\"12\"]", "cancel 12 --owner=1000");
	takes("[\"cancel\",\"0123abcd\"]", "cancel 0123abcd --owner=1000");
	takes("[\"migrate\",\"--to=h:1\",\"--json\",\"12\"]",
	      "migrate --to=h:1 --json 12 --owner=1000 --keys=/k");
	takes("[\"dump\",\"--tree=12\",\"--leave-running\"]", "dump --tree=12 --leave-running --owner=1000");
}

static void test_refused(void **state)
{
	static const char *const lists[] = {
		"[]",
		"[1]",
		"[\"restore\"]",
		"[\"keys\",\"show\"]",
		"[\"--to=h\",\"migrate\"]",
		"[\"migrate\",\"--action-script=/x\"]",
		"[\"migrate\",\"--owner=0\",\"1\"]",
		"[\"migrate\",\"--keys=/x\"]",
		"[\"migrate\",\"--insecure\"]",
		"[\"migrate\",\"--t=h\"]", /* getopt would complete it, we know only whole names */
		"[\"migrate\",\"--dow=h\"]",
		"[\"migrate\",\"--\",\"1\"]",
		"[\"migrate\",\"-t\",\"1\"]",
		"[\"migrate\",\"-o/x\"]",
		"[\"migrate\",\"x\"]",
		"[\"migrate\",\"\"]",
		"[\"migrate\",7]",
		"[\"dump\",\"--images-dir=/etc\"]",
		"[\"dump\",\"--lazy-pages\"]",
		"[\"status\",\"--config=/x\"]",
		"{}",
		"\"migrate\"",
	};

	(void)state;
	for (size_t i = 0; i < sizeof(lists) / sizeof(*lists); i++)
		takes(lists[i], "");
	takes("[\"migrate\",\"1\",\"1\",\"1\",\"1\",\"1\",\"1\",\"1\",\"1\",\"1\",\"1\",\"1\",\"1\",\"1\","
	      "\"1\",\"1\",\"1\",\"1\",\"1\",\"1\",\"1\",\"1\","
	      "\"1\",\"1\",\"1\",\"1\",\"1\",\"1\",\"1\",\"1\",\"1\",\"1\",\"1\",\"1\",\"1\",\"1\",\"1\","
	      "\"1\",\"1\",\"1\",\"1\",\"1\",\"1\",\"1\",\"1\","
	      "\"1\",\"1\",\"1\",\"1\",\"1\"]",
	      "");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_allowed),
		cmocka_unit_test(test_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
