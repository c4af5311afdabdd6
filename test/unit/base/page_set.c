/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/page_set.h"

#define P     4096ull
#define PAGES 200

/* The model: one flag per page. */
static void fill(struct page_set *s, bool *model, int n, unsigned *seed)
{
	for (int i = 0; i < n; i++) {
		int start = rand_r(seed) % PAGES, len = rand_r(seed) % 9;
		int end = start + len < PAGES ? start + len : PAGES;

		page_set_add(s, start * P, end * P);
		for (int k = start; k < end; k++)
			model[k] = true;
	}
}

static void check(const struct page_set *s, const bool *model)
{
	uint64_t bytes = 0;

	for (int i = 0; i < PAGES; i++) {
		assert_int_equal(page_set_has(s, i * P), model[i]);
		assert_int_equal(page_set_has(s, i * P + P - 1), model[i]);
		bytes += model[i] ? P : 0;
	}
	assert_int_equal(page_set_bytes(s), bytes);
	for (size_t i = 0; i < s->n; i++) {
		assert_true(s->r[i].start < s->r[i].end);
		assert_true(i == 0 || s->r[i - 1].end < s->r[i].start);
	}
}

static void test_operations_match_a_model(void **state)
{
	(void)state;
	unsigned seed = 1;

	for (int round = 0; round < 2000; round++) {
		bool a_model[PAGES] = {0}, b_model[PAGES] = {0}, want[PAGES];
		struct page_set a = PAGE_SET_INIT, b = PAGE_SET_INIT, ret = PAGE_SET_INIT;

		fill(&a, a_model, round % 40, &seed);
		fill(&b, b_model, rand_r(&seed) % 40, &seed);
		check(&a, a_model);
		page_set_union(&a, &b, &ret);
		for (int i = 0; i < PAGES; i++)
			want[i] = a_model[i] || b_model[i];
		check(&ret, want);
		page_set_and(&a, &b, &ret);
		for (int i = 0; i < PAGES; i++)
			want[i] = a_model[i] && b_model[i];
		check(&ret, want);
		page_set_minus(&a, &b, &ret);
		for (int i = 0; i < PAGES; i++)
			want[i] = a_model[i] && !b_model[i];
		check(&ret, want);
		for (int i = 0; i < PAGES; i++) {
			int end = i + 1 + rand_r(&seed) % 5, k = i;

			while (k < end && k < PAGES && a_model[k])
				k++;
			assert_int_equal(page_set_covers(&a, i * P, end * P), k == end);
		}
		page_set_remove(&a, &b);
		check(&a, want);
		page_set_merge(&a, &b);
		for (int i = 0; i < PAGES; i++)
			want[i] = a_model[i] || b_model[i];
		check(&a, want);
		int from = rand_r(&seed) % PAGES, to = rand_r(&seed) % PAGES;

		page_set_remove_range(&a, from * P, to * P);
		for (int i = from; i < to; i++)
			want[i] = false;
		check(&a, want);
		page_set_deinit(&a);
		page_set_deinit(&b);
		page_set_deinit(&ret);
	}
}

static void test_edges(void **state)
{
	(void)state;
	struct page_set s = PAGE_SET_INIT, none = PAGE_SET_INIT;

	assert_false(page_set_has(&s, 0));
	page_set_add(&s, P, P);
	assert_int_equal(s.n, 0);
	page_set_add(&s, ~0ull - P + 1 - P, ~0ull - P + 1);
	page_set_add(&s, 0, P);
	assert_int_equal(s.n, 2);
	page_set_remove(&s, &none);
	page_set_merge(&s, &none);
	assert_int_equal(page_set_bytes(&s), 2 * P);
	page_set_merge(&none, &s);
	assert_int_equal(page_set_bytes(&none), 2 * P);
	page_set_clear(&s);
	assert_int_equal(page_set_bytes(&s), 0);
	page_set_deinit(&s);
	page_set_deinit(&none);
	page_set_deinit(&none);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_operations_match_a_model),
		cmocka_unit_test(test_edges),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
