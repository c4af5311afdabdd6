/* SPDX-License-Identifier: Apache-2.0 */
/* Which write protection that VmFlags show is the tracker's, with a backend that says what it is told to. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "procfs/procfs.h"
#include "state/memory/memory.h"

#define A 0x100000ull
#define B 0x200000ull
#define C 0x300000ull
#define N 0x4000ull

static unsigned asked;
static uint64_t moved_to; /* the only place that the backend owns beside what was armed */
static uint32_t moved_kind;

static int owns(struct dirty_session *s, const struct dirty_vma *v)
{
	(void)s;
	asked++;
	return v->start == moved_to && v->end == moved_to + N && v->kind == moved_kind;
}

static struct dirty_backend_ops ops = {.name = "fake", .owns = owns};

/* Bit 0: A still shows it, 1: B, 2: C. All three do; A is armed. */
static unsigned clear(bool userfaults, bool shared)
{
	struct memory m = {.backend = {.ops = &ops}, .userfaults = userfaults};
	struct memory_process mp = {.session = (void *)&ops, .shows_uw = true};
	struct proc_vma v[3] = {
		{.start = A, .end = A + N}, {.start = B, .end = B + N}, {.start = C, .end = C + N}};
	struct proc_maps maps = {.v = v, .n = 3};
	unsigned left = 0;

	asked = 0;
	page_set_add(&mp.armed, A, A + N);
	for (int i = 0; i < 3; i++) {
		v[i].vmflags = PROC_VM_UFFD_WP | PROC_VM_MERGEABLE;
		v[i].shared = shared;
	}
	memory_clear_own_flags(&m, &mp, &maps);
	for (int i = 0; i < 3; i++) {
		assert_true(v[i].vmflags & PROC_VM_MERGEABLE);
		left |= v[i].vmflags & PROC_VM_UFFD_WP ? 1u << i : 0;
	}
	page_set_deinit(&mp.armed);
	return left;
}

static void test_armed_and_moved(void **state)
{
	(void)state;
	moved_to = B;
	moved_kind = DIRTY_VMA_SHARED;
	assert_int_equal(clear(false, true), 4); /* C is the program's */
	assert_int_equal(asked, 2);              /* A needs no question */
	assert_int_equal(clear(false, false), 6);
	moved_kind = DIRTY_VMA_ANON;
	assert_int_equal(clear(false, false), 4);
}

/* A program with userfaultfds of its own may have registered what it mapped over what was armed. */
static void test_programs_own_where_armed(void **state)
{
	(void)state;
	moved_to = B;
	moved_kind = DIRTY_VMA_ANON;
	assert_int_equal(clear(true, false), 5);
	assert_int_equal(asked, 3);
	moved_to = A;
	assert_int_equal(clear(true, false), 6);
}

/* A backend that does not say: what was armed, nothing else. */
static void test_nobody_to_ask(void **state)
{
	(void)state;
	ops.owns = NULL;
	assert_int_equal(clear(false, false), 6);
	assert_int_equal(clear(true, false), 6);
	ops.owns = owns;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_armed_and_moved),
		cmocka_unit_test(test_programs_own_where_armed),
		cmocka_unit_test(test_nobody_to_ask),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
