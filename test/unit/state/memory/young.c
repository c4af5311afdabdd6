/* SPDX-License-Identifier: Apache-2.0 */
/* Pages that were read too soon are looked at again once, when it is time, whatever rounds there were
 * between. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/util.h"
#include "state/memory/memory.h"

#define P PAGE_SIZE_BYTES

static uint64_t gone; /* calls that were in progress then have ended */

static uint64_t taken(struct memory_process *mp, uint64_t start, uint64_t end, bool all)
{
	struct page_set s = PAGE_SET_INIT;

	young_take(mp, gone, start, end, all, &s);
	uint64_t n = page_set_bytes(&s) / P;

	page_set_deinit(&s);
	return n;
}

/* Rounds are shorter than calls: what is old enough comes, what is not stays, nothing comes twice. */
static void test_rounds(void **state)
{
	(void)state;
	struct memory_process mp = {.collected = 1000};

	gone = 3000;
	assert_false(young_is(&mp, gone));
	young_add(&mp, 10 * P, 20 * P);
	mp.collected = 3000; /* it began when the look did, or before */
	assert_false(young_is(&mp, gone));
	young_add(&mp, 30 * P, 31 * P);
	young_add(&mp, 15 * P, 25 * P); /* partly the same pages */
	mp.collected = 3001;
	assert_true(young_is(&mp, gone));
	young_add(&mp, 18 * P, 19 * P);
	young_add(&mp, 40 * P, 41 * P);
	assert_int_equal(taken(&mp, 0, 5 * P, false), 0);
	assert_int_equal(taken(&mp, 12 * P, 1000 * P, false), 8 + 5 + 1);
	assert_int_equal(taken(&mp, 0, 1000 * P, false), 2);
	assert_int_equal(taken(&mp, 0, 1000 * P, false), 0);
	assert_int_equal(taken(&mp, 0, 1000 * P, true), 2);
	assert_int_equal(taken(&mp, 0, 1000 * P, true), 0);
	mp.collected++;
	young_add(&mp, 1 * P, 2 * P); /* the emptied rounds are gone */
	assert_int_equal(mp.n_young, 1);
	young_free(&mp);
}

static void test_forget(void **state)
{
	(void)state;
	struct memory_process mp = {.collected = 1};
	struct page_set gone = PAGE_SET_INIT;

	young_add(&mp, 1 * P, 9 * P);
	mp.collected = 2;
	young_add(&mp, 5 * P, 12 * P);
	page_set_add(&gone, 4 * P, 10 * P);
	young_forget(&mp, &gone);
	assert_int_equal(taken(&mp, 0, 100 * P, false), 3 + 2);
	page_set_deinit(&gone);
	young_free(&mp);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_rounds),
		cmocka_unit_test(test_forget),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
