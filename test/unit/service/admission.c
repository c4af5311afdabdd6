/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "base/util.h"
#include "service/admission.h"

#define N 8

struct world {
	struct applicant a[N];
	bool there[N];
	unsigned told[N]; /* what last; 99: nothing */
};

static struct applicant *of(void *ctx, size_t i)
{
	struct world *w = ctx;

	return w->there[i] ? &w->a[i] : NULL;
}

static void tell(void *ctx, size_t i, unsigned position)
{
	((struct world *)ctx)->told[i] = position;
}

static struct world world(void)
{
	struct world w = {0};

	for (int i = 0; i < N; i++) {
		w.there[i] = true;
		w.told[i] = 99;
	}
	return w;
}

static bool ask(struct world *w, const struct admission_limits *l, size_t i)
{
	bool in = admission_ask(&w->a[i], l, of, w, N);

	admission_update(l, of, w, N, tell);
	return in;
}

static void leave(struct world *w, const struct admission_limits *l, size_t i)
{
	w->there[i] = false;
	w->a[i] = (struct applicant){0};
	admission_update(l, of, w, N, tell);
}

static void test_in_order(void **state)
{
	(void)state;
	const struct admission_limits l = {2, 4};
	struct world w = world();

	/* Not in the order of their numbers. */
	assert_true(ask(&w, &l, 5));
	assert_true(ask(&w, &l, 1));
	assert_true(ask(&w, &l, 7));
	assert_true(ask(&w, &l, 0));
	assert_true(ask(&w, &l, 3));
	assert_int_equal(w.told[5], 0);
	assert_int_equal(w.told[1], 0);
	assert_int_equal(w.told[7], 1);
	assert_int_equal(w.told[0], 2);
	assert_int_equal(w.told[3], 3);
	assert_int_equal(w.told[2], 99); /* did not ask */
	leave(&w, &l, 1);
	assert_int_equal(w.told[7], 0);
	assert_int_equal(w.told[0], 1);
	assert_int_equal(w.told[3], 2);
	leave(&w, &l, 0); /* gives up waiting */
	assert_int_equal(w.told[3], 1);
	assert_int_equal(w.a[3].state, ADMISSION_QUEUED);
	leave(&w, &l, 5);
	leave(&w, &l, 7);
	assert_int_equal(w.told[3], 0);
	assert_int_equal(w.a[3].state, ADMISSION_LET_IN);
}

static void test_full(void **state)
{
	(void)state;
	const struct admission_limits l = {1, 2};
	struct world w = world();

	assert_true(ask(&w, &l, 0));
	assert_true(ask(&w, &l, 1));
	assert_true(ask(&w, &l, 2));
	assert_false(ask(&w, &l, 3));
	assert_int_equal(w.told[3], 99);
	assert_true(ask(&w, &l, 1)); /* twice: no second place */
	leave(&w, &l, 2);
	assert_true(ask(&w, &l, 3));
	assert_int_equal(w.told[3], 2);
}

static void test_no_queue(void **state)
{
	(void)state;
	const struct admission_limits l = {1, 0};
	struct world w = world();

	assert_true(ask(&w, &l, 4));
	assert_int_equal(w.told[4], 0);
	assert_false(ask(&w, &l, 5));
	leave(&w, &l, 4);
	assert_true(ask(&w, &l, 5));
}

/* Several places free at once. */
static void test_many_leave(void **state)
{
	(void)state;
	const struct admission_limits l = {3, 8};
	struct world w = world();

	for (size_t i = 0; i < N; i++)
		assert_true(ask(&w, &l, i));
	for (size_t i = 0; i < 3; i++) {
		w.there[i] = false;
		w.a[i] = (struct applicant){0};
	}
	admission_update(&l, of, &w, N, tell);
	for (size_t i = 3; i < 6; i++)
		assert_int_equal(w.told[i], 0);
	assert_int_equal(w.told[6], 1);
	assert_int_equal(w.told[7], 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_in_order),
		cmocka_unit_test(test_full),
		cmocka_unit_test(test_no_queue),
		cmocka_unit_test(test_many_leave),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
