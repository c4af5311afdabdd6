/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Differences of layouts, played on a model of an address space: one byte per page says what is mapped there
 * and which generation of content it has.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include <cmocka.h>

#include "base/util.h"
#include "state/memory/memory.h"

#define BASE  0x100000000ull
#define PAGES 64

struct page {
	int mapped, prot, generation;
};

struct model {
	struct page page[PAGES];
	int generation; /* of what is mapped now */
	int advice;     /* number of madvise calls */
};

static int at(uint64_t addr)
{
	return (int)((addr - BASE) / PAGE_SIZE_BYTES);
}

static int run(void *ctx, struct batch *b, struct error *e)
{
	struct model *m = ctx;

	(void)e;
	for (size_t i = 0; i < b->n; i++) {
		const struct pb_entry *x = &b->entries[i];
		uint64_t start = x->args[0], n = x->args[1] / PAGE_SIZE_BYTES;

		if (x->op != PB_OP_SYSCALL || start < BASE || start >= BASE + PAGES * PAGE_SIZE_BYTES)
			continue;
		for (uint64_t p = at(start); p < at(start) + n; p++) {
			if (x->nr == SYS_munmap) {
				assert_true(m->page[p].mapped);
				m->page[p].mapped = 0;
			} else if (x->nr == SYS_mmap) {
				assert_false(m->page[p].mapped); /* MAP_FIXED_NOREPLACE would fail */
				m->page[p] = (struct page){1, (int)x->args[2], m->generation};
			} else if (x->nr == SYS_mprotect) {
				assert_true(m->page[p].mapped);
				m->page[p].prot = (int)x->args[2];
			}
		}
		m->advice += x->nr == SYS_madvise;
	}
	return 0;
}

static int no_object(void *ctx, uint64_t id)
{
	(void)ctx;
	(void)id;
	return -1;
}

static void add(Ferry__Mm *mm, int start, int end, uint32_t prot, uint64_t flags)
{
	Ferry__Vma *v = xmalloc(sizeof(*v));

	ferry__vma__init(v);
	v->start = BASE + start * PAGE_SIZE_BYTES;
	v->end = BASE + end * PAGE_SIZE_BYTES;
	v->prot = prot;
	v->flags = flags;
	v->path = xstrdup("");
	mm->vmas = xrealloc(mm->vmas, (mm->n_vmas + 1) * sizeof(*mm->vmas));
	mm->vmas[mm->n_vmas++] = v;
}

static Ferry__Mm *new_mm(void)
{
	Ferry__Mm *mm = xmalloc(sizeof(*mm));

	ferry__mm__init(mm);
	mm->exe = xstrdup("/bin/true");
	return mm;
}

static void go(struct model *m, const Ferry__Mm *old, const Ferry__Mm *new)
{
	struct layout_target t = {.run = run,
				  .object_fd = no_object,
				  .ctx = m,
				  .region_start = 1ull << 40,
				  .region_end = (1ull << 40) + (1 << 20),
				  .pid = 1};
	struct error e = ERROR_INIT;

	m->generation++;
	assert_int_equal(layout_apply(&t, old, new, &e), 0);
}

static void begin(struct model *m, const Ferry__Mm *mm)
{
	Ferry__Mm *nothing = new_mm();

	go(m, nothing, mm);
	ferry__mm__free_unpacked(nothing, NULL);
}

static void assert_is(const struct model *m, const Ferry__Mm *mm)
{
	for (int p = 0; p < PAGES; p++) {
		int prot = -1;

		for (size_t i = 0; i < mm->n_vmas; i++)
			if (p >= at(mm->vmas[i]->start) && p < at(mm->vmas[i]->end))
				prot = (int)mm->vmas[i]->prot;
		assert_int_equal(m->page[p].mapped, prot >= 0);
		if (prot >= 0)
			assert_int_equal(m->page[p].prot, prot);
	}
}

static void test_grow_keeps_content(void **state)
{
	struct model m = {0};
	Ferry__Mm *a = new_mm(), *b = new_mm();

	(void)state;
	add(a, 4, 8, PROT_READ | PROT_WRITE, 0);
	add(b, 2, 12, PROT_READ | PROT_WRITE, 0);
	m.page[0].mapped = 0;
	begin(&m, a);
	go(&m, a, b);
	assert_is(&m, b);
	assert_int_equal(m.page[5].generation, 1);
	assert_int_equal(m.page[3].generation, 2);
	assert_int_equal(m.page[9].generation, 2);
	ferry__mm__free_unpacked(a, NULL);
	ferry__mm__free_unpacked(b, NULL);
}

static void test_split_by_mprotect(void **state)
{
	struct model m = {0};
	Ferry__Mm *a = new_mm(), *b = new_mm();

	(void)state;
	add(a, 0, 10, PROT_READ | PROT_WRITE, 0);
	add(b, 0, 4, PROT_READ | PROT_WRITE, 0);
	add(b, 4, 6, PROT_READ, 0);
	add(b, 6, 10, PROT_READ | PROT_WRITE, 0);
	begin(&m, a);
	go(&m, a, b);
	assert_is(&m, b);
	for (int p = 0; p < 10; p++)
		assert_int_equal(m.page[p].generation, 1);
	ferry__mm__free_unpacked(a, NULL);
	ferry__mm__free_unpacked(b, NULL);
}

static void test_other_kind_is_mapped_anew(void **state)
{
	struct model m = {0};
	Ferry__Mm *a = new_mm(), *b = new_mm();

	(void)state;
	add(a, 0, 4, PROT_READ, 0);
	add(b, 0, 4, PROT_READ, FERRY__VMA_FLAG__VMA_GROWSDOWN);
	begin(&m, a);
	go(&m, a, b);
	assert_is(&m, b);
	assert_int_equal(m.page[0].generation, 2);
	ferry__mm__free_unpacked(a, NULL);
	ferry__mm__free_unpacked(b, NULL);
}

static void test_advice_only(void **state)
{
	struct model m = {0};
	Ferry__Mm *a = new_mm(), *b = new_mm();

	(void)state;
	add(a, 0, 4, PROT_READ, 0);
	add(b, 0, 4, PROT_READ, FERRY__VMA_FLAG__VMA_DONTFORK);
	begin(&m, a);
	assert_int_equal(m.advice, 0);
	go(&m, a, b);
	assert_int_equal(m.advice, 1);
	go(&m, b, b);
	assert_int_equal(m.advice, 1);
	go(&m, b, a);
	assert_int_equal(m.advice, 2);
	ferry__mm__free_unpacked(a, NULL);
	ferry__mm__free_unpacked(b, NULL);
}

/* Random layouts, one after the other: the model always ends as the layout says, and what both have keeps its
 * content. */
static void test_random(void **state)
{
	struct model m = {0};
	Ferry__Mm *old = new_mm();

	(void)state;
	srandom(1);
	for (int round = 0; round < 300; round++) {
		Ferry__Mm *new = new_mm();
		struct model before = m;
		int p = 0;

		while (p < PAGES - 1) {
			int start = p + (int)(random() % 6), end = start + 1 + (int)(random() % 8);

			if (end > PAGES)
				break;
			add(new, start, end, random() % 2 ? PROT_READ : PROT_READ | PROT_WRITE, 0);
			p = end;
		}
		go(&m, old, new);
		assert_is(&m, new);
		for (int i = 0; i < PAGES; i++)
			if (before.page[i].mapped && m.page[i].mapped)
				assert_int_equal(m.page[i].generation, before.page[i].generation);
		ferry__mm__free_unpacked(old, NULL);
		old = new;
	}
	ferry__mm__free_unpacked(old, NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_grow_keeps_content),
		cmocka_unit_test(test_split_by_mprotect),
		cmocka_unit_test(test_other_kind_is_mapped_anew),
		cmocka_unit_test(test_advice_only),
		cmocka_unit_test(test_random),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
