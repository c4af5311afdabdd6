/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <linux/btf.h>

#include "base/util.h"
#include "procfs/btf.h"

/* struct inner { u64 a; union { u32 b; u8 c; }; };
 * struct outer { u32 x; int flag:3 (at bit 5 of byte 4); struct inner in; const struct inner *p; }; */
static const char strings[] = "\0u64\0u32\0u8\0inner\0a\0b\0c\0outer\0x\0flag\0in\0p";

static uint32_t at(const char *s)
{
	for (size_t i = 0; i < sizeof(strings); i += strlen(strings + i) + 1)
		if (!strcmp(strings + i, s))
			return (uint32_t)i;
	fail();
	return 0;
}

struct builder {
	uint32_t v[256];
	size_t n;
};

static void put(struct builder *b, size_t n, const uint32_t *v)
{
	memcpy(b->v + b->n, v, n * 4);
	b->n += n;
}
#define PUT(b, ...)         put(b, sizeof((uint32_t[]){__VA_ARGS__}) / sizeof(uint32_t), (uint32_t[]){__VA_ARGS__})
#define INFO(kind, n, flag) ((uint32_t)(flag) << 31 | (uint32_t)(kind) << 24 | (n))

static uint8_t *make(size_t *ret)
{
	struct builder b = {.n = 0};
	struct btf_header h = {.magic = BTF_MAGIC, .version = BTF_VERSION, .hdr_len = sizeof(h)};

	PUT(&b, at("u64"), INFO(BTF_KIND_INT, 0, 0), 8, 64);                            /* 1 */
	PUT(&b, at("u32"), INFO(BTF_KIND_INT, 0, 0), 4, 32);                            /* 2 */
	PUT(&b, at("u8"), INFO(BTF_KIND_INT, 0, 0), 1, 8);                              /* 3 */
	PUT(&b, 0, INFO(BTF_KIND_UNION, 2, 0), 4, at("b"), 2, 0, at("c"), 3, 0);        /* 4 */
	PUT(&b, at("inner"), INFO(BTF_KIND_STRUCT, 2, 0), 16, at("a"), 1, 0, 0, 4, 64); /* 5 */
	PUT(&b, 0, INFO(BTF_KIND_CONST, 0, 0), 5);                                      /* 6 */
	PUT(&b, 0, INFO(BTF_KIND_PTR, 0, 0), 6);                                        /* 7 */
	PUT(&b, at("outer"), INFO(BTF_KIND_STRUCT, 4, 1), 32, at("x"), 2, 0, at("flag"), 2, 3u << 24 | 37,
	    at("in"), 6, 64, at("p"), 7, 192); /* 8 */
	h.type_len = (uint32_t)b.n * 4;
	h.str_off = h.type_len;
	h.str_len = sizeof(strings);
	*ret = sizeof(h) + h.type_len + h.str_len;
	uint8_t *data = xmalloc(*ret);

	memcpy(data, &h, sizeof(h));
	memcpy(data + sizeof(h), b.v, h.type_len);
	memcpy(data + sizeof(h) + h.type_len, strings, h.str_len);
	return data;
}

static void expect(const struct btf *b, const char *type, const char *path, uint32_t offset, uint32_t size)
{
	struct btf_field f;

	assert_int_equal(btf_find(b, type, path, &f), 0);
	assert_int_equal(f.offset, offset);
	assert_int_equal(f.size, size);
	assert_int_equal(f.bits, 0);
}

static void test_members(void **state)
{
	struct error e = ERROR_INIT;
	struct btf_field f;
	struct btf b;
	size_t n;
	uint8_t *data = make(&n);

	(void)state;
	assert_int_equal(btf_parse(&b, data, n, &e), 0);
	expect(&b, "inner", "a", 0, 8);
	expect(&b, "inner", "b", 8, 4); /* of a union without a name */
	expect(&b, "inner", "c", 8, 1);
	expect(&b, "outer", "x", 0, 4);
	expect(&b, "outer", "in.c", 16, 1);
	expect(&b, "outer", "in", 8, 0);
	expect(&b, "outer", "p", 24, 8);
	assert_int_equal(btf_find(&b, "outer", "flag", &f), 0);
	assert_int_equal(f.offset, 4);
	assert_int_equal(f.shift, 5);
	assert_int_equal(f.bits, 3);
	assert_true(btf_find(&b, "outer", "y", &f) < 0);
	assert_true(btf_find(&b, "outer", "x.a", &f) < 0);
	assert_true(btf_find(&b, "outer", "p.a", &f) < 0);
	assert_true(btf_find(&b, "other", "x", &f) < 0);
	btf_deinit(&b);
}

/* Whatever is cut off or changed: an error, or nothing found, but nothing read beyond the end. */
static void test_broken(void **state)
{
	struct error e = ERROR_INIT;
	struct btf_field f;
	struct btf b;
	size_t n;
	uint8_t *whole = make(&n);

	(void)state;
	for (size_t cut = 0; cut < n; cut++) {
		uint8_t *part = xmemdup(whole, cut ? cut : 1);

		assert_true(btf_parse(&b, part, cut, &e) < 0);
		btf_deinit(&b);
	}
	for (size_t i = 0; i < n * 8; i++) {
		uint8_t *odd = xmemdup(whole, n);

		odd[i / 8] ^= 1 << i % 8;
		if (btf_parse(&b, odd, n, &e) >= 0) {
			btf_find(&b, "outer", "in.c", &f);
			btf_find(&b, "outer", "flag", &f);
		}
		btf_deinit(&b);
	}
	free(whole);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_members), cmocka_unit_test(test_broken)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
