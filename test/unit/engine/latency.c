/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "engine/latency.h"

static void test_none(void **state)
{
	static struct latency l;

	(void)state;
	assert_int_equal(latency_at(&l, 50), 0);
}

static void test_exact(void **state)
{
	static struct latency l;

	(void)state;
	latency_add(&l, 7);
	assert_int_equal(latency_at(&l, 50), 7);
	latency_add(&l, UINT64_MAX / 2);
	assert_int_equal(latency_at(&l, 50), 7);
	assert_int_equal(latency_at(&l, 100), UINT64_MAX / 2);
}

/* Within a class: a sixteenth. */
static void test_close(void **state)
{
	static struct latency l;

	(void)state;
	for (uint64_t ns = 1; ns <= 100000; ns++)
		latency_add(&l, ns * 10);
	for (double p = 1; p <= 100; p += 1) {
		double want = p * 10000, got = (double)latency_at(&l, p);

		assert_true(got >= want * 0.999 && got <= want * 1.07);
	}
	assert_int_equal(l.max, 1000000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_none),
		cmocka_unit_test(test_exact),
		cmocka_unit_test(test_close),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
