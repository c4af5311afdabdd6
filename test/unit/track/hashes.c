/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "base/util.h"
#include "track/hashes.h"

#define P PAGE_SIZE_BYTES

static void test_same_and_other(void **state)
{
	(void)state;
	struct page_hashes *h = page_hashes_new();
	char page[P] = {0};

	assert_false(page_hashes_update(h, 0x7000, page)); /* never seen */
	assert_true(page_hashes_update(h, 0x7000, page));
	assert_false(page_hashes_update(h, 0x8000, page)); /* another place */
	page[P - 1] = 1;
	assert_false(page_hashes_update(h, 0x7000, page));
	assert_true(page_hashes_update(h, 0x7000, page));
	page[P - 1] = 0;
	assert_false(page_hashes_update(h, 0x7000, page)); /* only the last one counts */
	assert_true(page_hashes_update(h, 0x8000, page));
	page_hashes_free(h);
	page_hashes_free(NULL);
}

static void test_forget(void **state)
{
	(void)state;
	struct page_hashes *h = page_hashes_new();
	char page[P];
	const uint64_t at = (1ull << 46) - 600 * P; /* over borders of blocks */

	memset(page, 3, sizeof(page));
	for (uint64_t i = 0; i < 1200; i++)
		assert_false(page_hashes_update(h, at + i * P, page));
	page_hashes_forget(h, at + 10 * P, at + 1100 * P);
	page_hashes_forget(h, 0, 1ull << 30); /* nothing there */
	for (uint64_t i = 0; i < 1200; i++)
		assert_int_equal(page_hashes_update(h, at + i * P, page), i < 10 || i >= 1100);
	page_hashes_free(h);
}

/* Equal pages find each other, as long as what is known of them is true. */
static void test_twins(void **state)
{
	(void)state;
	struct page_hashes *h = page_hashes_new();
	uint64_t page[P / 8] = {0};

	assert_int_equal(page_hashes_twin(h, 0x5000), 0); /* nothing is known of it */
	for (uint64_t at = 0x1000; at <= 0x3000; at += P) {
		page[1] = 7;
		page_hashes_update(h, at, page);
		assert_int_equal(page_hashes_twin(h, at), at == 0x1000 ? 0 : 0x1000);
	}
	page[1] = 8;
	page_hashes_update(h, 0x4000, page);
	assert_int_equal(page_hashes_twin(h, 0x4000), 0);
	/* The first one changes: not a twin any more, but one of what it is now. */
	page_hashes_update(h, 0x1000, page);
	assert_int_equal(page_hashes_twin(h, 0x3000), 0);
	assert_int_equal(page_hashes_twin(h, 0x2000), 0x3000);
	assert_int_equal(page_hashes_twin(h, 0x1000), 0x4000);
	/* Gone. */
	page_hashes_forget(h, 0x3000, 0x4000);
	assert_int_equal(page_hashes_twin(h, 0x2000), 0);
	assert_int_equal(page_hashes_twin(h, 0x3000), 0);
	page_hashes_free(h);
}

/* However many there are, one that is found is one that is the same. */
static void test_many_twins(void **state)
{
	(void)state;
	struct page_hashes *h = page_hashes_new();
	uint64_t page[P / 8] = {0}, found = 0;

	for (uint64_t i = 0; i < 40000; i++) {
		page[3] = i % 3000;
		page_hashes_update(h, (i + 1) * P, page);
		uint64_t twin = page_hashes_twin(h, (i + 1) * P);

		if (!twin)
			continue;
		assert_int_equal((twin / P - 1) % 3000, i % 3000);
		assert_true(twin != (i + 1) * P);
		found++;
	}
	assert_true(found > 10000);
	page_hashes_free(h);
}

/* Many blocks: the table grows and keeps what it has; what is sparse costs a block for each place. */
static void test_many(void **state)
{
	(void)state;
	struct page_hashes *h = page_hashes_new();
	uint64_t page[P / 8] = {0};

	for (uint64_t i = 0; i < 3000; i++) {
		page[7] = i;
		assert_false(page_hashes_update(h, i * 12345 * P, page));
	}
	for (uint64_t i = 0; i < 3000; i++) {
		page[7] = i;
		assert_true(page_hashes_update(h, i * 12345 * P, page));
	}
	assert_in_range(page_hashes_bytes(h), 3000 * 512 * 16, 3000 * 513 * 16 + (1 << 20));
	page_hashes_free(h);
}

/* A page that another process has, too. */
static void test_copy(void **state)
{
	(void)state;
	struct page_hashes *a = page_hashes_new(), *b = page_hashes_new();
	char page[P] = {1}, other[P] = {2};

	page_hashes_update(a, 0x10000, page);
	page_hashes_update(b, 0x11000, other);
	page_hashes_copy(b, a, 0x10000, 0x12000);
	assert_true(page_hashes_update(b, 0x10000, page));
	assert_false(page_hashes_update(b, 0x11000, other)); /* not known in a: nor here any more */
	assert_true(page_hashes_update(a, 0x10000, page));
	page_hashes_copy(a, a, 0, 1 << 20);
	assert_true(page_hashes_update(a, 0x10000, page));
	page_hashes_free(a);
	page_hashes_free(b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_same_and_other), cmocka_unit_test(test_forget),
		cmocka_unit_test(test_twins),          cmocka_unit_test(test_many_twins),
		cmocka_unit_test(test_many),           cmocka_unit_test(test_copy),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
