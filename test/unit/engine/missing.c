/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/util.h"
#include "engine/missing.h"

#define P     PAGE_SIZE_BYTES
#define PAGES 512 /* of the model's address space */

/* Two ranges: pages 10 to 19 and 30 to 34. */
static struct missing fixed(size_t *ret_space)
{
	struct missing m = MISSING_INIT;
	struct page_set s = PAGE_SET_INIT;

	page_set_add(&s, 10 * P, 20 * P);
	page_set_add(&s, 30 * P, 35 * P);
	*ret_space = missing_add_space(&m, missing_add_source(&m, 77, &s), 5, &s);
	page_set_deinit(&s);
	return m;
}

static bool is_missing(const struct missing *m, size_t space, uint64_t page)
{
	uint64_t mark;

	return missing_find(m, space, page * P, &mark);
}

static void test_books(void **state)
{
	size_t x;
	struct missing m = fixed(&x);
	uint64_t mark, addr;

	(void)state;
	assert_int_equal(missing_left(&m), 15);
	assert_true(missing_find(&m, x, 31 * P, &mark));
	assert_int_equal(mark, 11);
	assert_int_equal(missing_address(&m, 0, 11), 31 * P);
	assert_true(missing_mark(&m, 0, 31 * P, &mark));
	assert_false(missing_mark(&m, 0, 25 * P, &mark));
	assert_false(is_missing(&m, x, 20));
	missing_arrived(&m, 0, 11);
	assert_false(is_missing(&m, x, 31));
	assert_false(missing_where(&m, x, 11, &addr));
	missing_arrived(&m, 0, 11);
	assert_int_equal(missing_left(&m), 14);
	missing_drop(&m, x, 15 * P, 31 * P);
	assert_int_equal(missing_left(&m), 8);
	missing_end(&m, x);
	assert_int_equal(missing_left(&m), 0);
	missing_deinit(&m);
}

static void test_order(void **state)
{
	size_t x;
	struct missing m = fixed(&x);
	uint64_t mark;

	(void)state;
	/* Ahead of the last fault first, as far as pages lie together; then back. */
	assert_true(missing_urge(&m, 0, 4));
	assert_false(missing_urge(&m, 0, 4));
	assert_int_equal(missing_next(&m, 0, 3, &mark), 3);
	assert_int_equal(mark, 5);
	assert_int_equal(missing_next(&m, 0, 16, &mark), 2);
	assert_int_equal(mark, 8);
	assert_int_equal(missing_next(&m, 0, 16, &mark), 5);
	assert_int_equal(mark, 10);
	assert_int_equal(missing_next(&m, 0, 16, &mark), 4);
	assert_int_equal(mark, 0);
	assert_int_equal(missing_next(&m, 0, 16, &mark), 0);
	/* Asked for, but not there. */
	assert_int_equal(missing_left(&m), 15);
	missing_arrived(&m, 0, 4);
	missing_arrived(&m, 0, 7);
	missing_ask_again(&m);
	assert_int_equal(missing_next(&m, 0, 16, &mark), 2);
	assert_int_equal(mark, 5);
	assert_true(missing_urge(&m, 0, 9));
	missing_calm(&m, 0, 9);
	assert_true(missing_urge(&m, 0, 9));
	missing_deinit(&m);
}

static void test_fork(void **state)
{
	size_t x;
	struct missing m = fixed(&x);
	uint64_t mark;

	(void)state;
	missing_arrived(&m, 0, 0);
	size_t child = missing_fork(&m, x, 6);

	assert_false(is_missing(&m, child, 10));
	assert_true(is_missing(&m, child, 12));
	/* Given up here, wanted there: still fetched. */
	missing_drop(&m, x, 0, 100 * P);
	assert_int_equal(missing_left(&m), 14);
	assert_false(is_missing(&m, x, 12));
	assert_true(is_missing(&m, child, 12));
	assert_int_equal(missing_next(&m, 0, 16, &mark), 9);
	missing_end(&m, child);
	assert_int_equal(missing_left(&m), 0);
	missing_deinit(&m);
}

/* --- against a model: for every page of every space which mark it lacks ------------------------------ */

struct model {
	int lacks[64][PAGES]; /* mark + 1; 0: nothing */
	size_t n;
};

static void agree(const struct missing *m, const struct model *t)
{
	uint64_t mark, addr, left = 0;
	bool wanted[PAGES] = {false};

	assert_int_equal(m->n_spaces, t->n);
	for (size_t s = 0; s < t->n; s++)
		for (uint64_t p = 0; p < PAGES; p++) {
			bool found = missing_find(m, s, p * P, &mark);

			assert_int_equal(found, t->lacks[s][p] > 0);
			if (!found)
				continue;
			assert_int_equal(mark, t->lacks[s][p] - 1);
			assert_true(missing_where(m, s, mark, &addr));
			assert_int_equal(addr, p * P);
			left += !wanted[mark];
			wanted[mark] = true;
		}
	assert_int_equal(missing_left(m), left);
}

static void test_random_programs(void **state)
{
	(void)state;
	for (unsigned seed = 1; seed <= 200; seed++) {
		struct missing m = MISSING_INIT;
		struct page_set s = PAGE_SET_INIT;
		struct model *t = calloc(1, sizeof(*t));
		int marks = 0;

		srand(seed);
		for (uint64_t p = 0; p < PAGES; p++)
			if (rand() % 3 && (p / 16) % 2) {
				page_set_add(&s, p * P, (p + 1) * P);
				t->lacks[0][p] = ++marks;
			}
		missing_add_space(&m, missing_add_source(&m, 1, &s), 3, &s);
		t->n = 1;
		for (int i = 0; i < 120; i++) {
			size_t x = (size_t)rand() % t->n;
			uint64_t a = rand() % (PAGES - 40), b = rand() % (PAGES - 40), n = 1 + rand() % 40;

			switch (rand() % 8) {
			case 0:
				if (t->n < 20) {
					memcpy(t->lacks[t->n], t->lacks[x], sizeof(t->lacks[0]));
					assert_int_equal(missing_fork(&m, x, 9), t->n);
					t->n++;
				}
				break;
			case 1:
			case 2:
				memset(&t->lacks[x][a], 0, n * sizeof(int));
				missing_drop(&m, x, a * P, (a + n) * P);
				break;
			case 3:
			case 4:
				if (a + n <= b || b + n <= a) {
					memcpy(&t->lacks[x][b], &t->lacks[x][a], n * sizeof(int));
					memset(&t->lacks[x][a], 0, n * sizeof(int));
					missing_move(&m, x, a * P, b * P, n * P, rand() % 2);
				}
				break;
			case 5:
				if (rand() % 10 == 0) {
					memset(t->lacks[x], 0, sizeof(t->lacks[x]));
					missing_end(&m, x);
				}
				break;
			default:
				if (marks) {
					int mark = rand() % marks;

					for (size_t k = 0; k < t->n; k++)
						for (size_t p = 0; p < PAGES; p++)
							if (t->lacks[k][p] == mark + 1)
								t->lacks[k][p] = 0;
					missing_arrived(&m, 0, (uint64_t)mark);
				}
			}
		}
		agree(&m, t);
		missing_deinit(&m);
		page_set_deinit(&s);
		free(t);
	}
}

/* @expected: page of the object; -1: nothing is known there. */
static void look_at(const struct missing *m, size_t space, uint64_t page, int64_t expected)
{
	const struct missing_view *v = missing_view_near(m, space, page * P);
	bool known = v && page * P < v->end;

	assert_int_equal(known, expected >= 0);
	if (known) {
		assert_int_equal(v->object, 3);
		assert_int_equal(v->offset + page * P - v->start, (uint64_t)expected * P);
	}
}

/* @page is found to be in the same mapping as the last view below it. */
static void reach(struct missing *m, size_t space, uint64_t page)
{
	missing_view_reaches(m, space, missing_view_near(m, space, page * P), (page + 1) * P);
}

/* Shared memory: where it is mapped, and that a page of it is one page. Private memory is at 10 and 30. */
static void test_views(void **state)
{
	const struct missing_range part = {5 * P, 8 * P, 10}; /* pages 30 to 32 of the source */
	const struct missing_view view = {100 * P, 120 * P, 4 * P, 3};
	uint64_t bits = 7 << 10, mark;
	size_t x, o, found;
	struct missing m = fixed(&x);

	(void)state;
	missing_drop(&m, x, 30 * P, 33 * P); /* there it is not private */
	assert_int_equal(missing_left(&m), 12);
	o = missing_add_object(&m, 0, 3, &part, 1, &bits);
	assert_int_equal(missing_left(&m), 15);
	missing_add_view(&m, x, &view);
	look_at(&m, x, 99, -1);
	look_at(&m, x, 100, 4);
	look_at(&m, x, 119, 23);
	look_at(&m, x, 122, -1);
	reach(&m, x, 122); /* it has grown */
	look_at(&m, x, 122, 26);
	look_at(&m, x, 15, -1);
	assert_true(missing_find_shared(&m, 3, 6 * P, &found, &mark));
	assert_int_equal(mark, 11);
	assert_int_equal(found, o);
	assert_int_equal(missing_none_in(&m, 3, 2 * P, 64 * P), 3 * P);
	assert_false(missing_find_shared(&m, 2, 6 * P, &found, &mark));

	/* Moved, mapped twice, and partly unmapped */
	missing_move(&m, x, 110 * P, 200 * P, 10 * P, true);
	look_at(&m, x, 109, 13);
	look_at(&m, x, 205, 19);
	look_at(&m, x, 115, 19); /* it stays there, too */
	missing_unmap(&m, x, 110 * P, 120 * P);
	look_at(&m, x, 115, -1);
	look_at(&m, x, 121, 25);
	missing_move(&m, x, 100 * P, 300 * P, 0, true);
	look_at(&m, x, 100, 4);
	look_at(&m, x, 300, -1);
	reach(&m, x, 307);
	look_at(&m, x, 307, 11);
	size_t child = missing_fork(&m, x, 9);

	missing_unmap(&m, x, 102 * P, 104 * P);
	look_at(&m, x, 101, 5);
	look_at(&m, x, 105, 9);
	missing_unmap(&m, x, 300 * P, 320 * P);
	look_at(&m, child, 103, 7);
	look_at(&m, child, 307, 11);
	look_at(&m, child, 205, 19);

	/* All of a mapping moves, also what the books do not have. */
	missing_move(&m, child, 200 * P, 400 * P, 30 * P, false);
	look_at(&m, child, 205, -1);
	look_at(&m, child, 429, 43);
	missing_move(&m, child, 400 * P, 440 * P, 0, true);
	missing_move(&m, child, 440 * P, 480 * P, 6 * P, false);
	look_at(&m, child, 485, 19);

	/* Taken away; come. */
	missing_drop(&m, o, 5 * P, 6 * P);
	assert_false(missing_find_shared(&m, 3, 5 * P, &found, &mark));
	missing_arrived(&m, 0, 12);
	assert_false(missing_find_shared(&m, 3, 7 * P, &found, &mark));
	assert_true(missing_find_shared(&m, 3, 6 * P, &found, &mark));
	missing_deinit(&m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_books),
		cmocka_unit_test(test_order),
		cmocka_unit_test(test_fork),
		cmocka_unit_test(test_views),
		cmocka_unit_test(test_random_programs),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
