/* SPDX-License-Identifier: Apache-2.0 */
/* Who is cloned from whom, in which order, and what can be inherited. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/util.h"
#include "engine/kin.h"

#define PAGE 4096ull
#define MOST 16

struct family {
	Ferry__Tree tree;
	Ferry__TreeProcess tp[MOST];
	Ferry__TreeProcess *list[MOST];
	Ferry__Mm mm[MOST];
	Ferry__Vma vma[MOST][4];
	Ferry__Vma *vmas[MOST][4];
	const Ferry__Mm *mms[MOST];
	struct stream_kin *kin;
};

/* @origin: number of the exec that made its address space; pages [0, @pages) are mapped. 0: a zombie. */
static void add(struct family *f, int pid, int ppid, int sid, unsigned origin, uint64_t pages)
{
	size_t i = f->tree.n_processes++;

	assert_true(i < MOST);
	ferry__tree_process__init(&f->tp[i]);
	f->tp[i].pid = pid;
	f->tp[i].ppid = ppid;
	f->tp[i].sid = sid;
	f->tp[i].exit_signal = 17;
	f->tp[i].start_time = 100 + i;
	f->tp[i].comm = "test";
	f->list[i] = &f->tp[i];
	f->tree.processes = f->list;
	ferry__mm__init(&f->mm[i]);
	f->mm[i].exe = "/bin/test";
	f->mm[i].start_stack = 0x7ff000000000 + origin * 0x1000000ull;
	f->mm[i].vmas = f->vmas[i];
	f->mm[i].n_vmas = 1;
	ferry__vma__init(&f->vma[i][0]);
	f->vma[i][0].start = 0x10000;
	f->vma[i][0].end = 0x10000 + pages * PAGE;
	f->vma[i][0].path = "";
	f->vmas[i][0] = &f->vma[i][0];
	f->mms[i] = pages ? &f->mm[i] : NULL;
}

static void plan(struct family *f)
{
	f->kin = kin_plan(&f->tree, f->mms);
}

static size_t position(const struct family *f, int pid)
{
	for (size_t i = 0; i < f->tree.n_processes; i++)
		if (f->tree.processes[i]->pid == pid) {
			assert_int_equal(f->kin[i].pid, pid);
			return i;
		}
	fail_msg("%d is not in the tree any more", pid);
	return 0;
}

static void expect(const struct family *f, int pid, int from, uint64_t pages)
{
	const struct stream_kin *k = &f->kin[position(f, pid)];

	assert_int_equal(k->from, from);
	assert_int_equal(page_set_bytes(&k->common), pages * PAGE);
	if (from)
		assert_true(position(f, from) < position(f, pid));
}

static void end(struct family *f)
{
	/* Parents first, whatever happened. */
	for (size_t i = 1; i < f->tree.n_processes; i++)
		assert_true(position(f, f->tree.processes[i]->ppid) < i);
	kin_free(f->kin, f->tree.n_processes);
}

static void test_parents(void **state)
{
	struct family f = {.tree = FERRY__TREE__INIT};

	(void)state;
	add(&f, 10, 1, 10, 1, 8);
	add(&f, 11, 10, 10, 1, 8);
	add(&f, 12, 10, 10, 1, 4); /* has unmapped some */
	add(&f, 13, 11, 10, 1, 8);
	add(&f, 14, 10, 10, 2, 8); /* exec */
	add(&f, 15, 10, 10, 1, 0); /* zombie */
	plan(&f);
	expect(&f, 10, 0, 0);
	expect(&f, 11, 10, 8);
	expect(&f, 12, 10, 4);
	expect(&f, 13, 11, 8);
	expect(&f, 14, 0, 0);
	expect(&f, 15, 0, 0);
	end(&f);
}

static void test_dead_parent(void **state)
{
	struct family f = {.tree = FERRY__TREE__INIT};

	(void)state;
	add(&f, 10, 1, 10, 1, 2);
	add(&f, 11, 10, 10, 2, 8); /* of a parent that had exec'ed */
	add(&f, 12, 10, 10, 2, 8);
	add(&f, 13, 10, 10, 1, 8); /* of one that had not, but has mapped more than the root */
	add(&f, 14, 10, 10, 1, 8);
	add(&f, 15, 10, 10, 1, 2); /* as the root */
	f.tp[2].exit_signal = 17;
	plan(&f);
	expect(&f, 11, 0, 0);
	expect(&f, 12, 11, 8);
	expect(&f, 13, 10, 2);
	expect(&f, 14, 13, 8);
	expect(&f, 15, 10, 2);
	end(&f);
}

static void test_not_from_sibling(void **state)
{
	struct family f = {.tree = FERRY__TREE__INIT};

	(void)state;
	add(&f, 10, 1, 10, 1, 2);
	add(&f, 11, 10, 11, 2, 8); /* leads a session: its clones would be in it */
	add(&f, 12, 10, 10, 2, 8);
	add(&f, 13, 10, 10, 2, 8);
	add(&f, 14, 10, 10, 2, 8);
	f.tp[3].exit_signal = 10; /* a clone has that of its creator */
	plan(&f);
	expect(&f, 11, 0, 0);
	expect(&f, 12, 0, 0);
	expect(&f, 13, 0, 0);
	expect(&f, 14, 12, 8);
	end(&f);
}

/* 20 has left the session of 10 for one of its own; 21 has stayed, although it is younger than 22. */
static void test_sessions(void **state)
{
	struct family f = {.tree = FERRY__TREE__INIT};

	(void)state;
	add(&f, 10, 1, 10, 1, 8);
	add(&f, 20, 10, 20, 1, 8);
	add(&f, 22, 20, 20, 1, 8);
	add(&f, 21, 20, 10, 1, 8);
	add(&f, 23, 20, 99, 1, 8); /* of a session whose leader is dead */
	add(&f, 24, 20, 99, 2, 8);
	add(&f, 25, 20, 99, 1, 8);
	plan(&f);
	assert_true(position(&f, 21) < position(&f, 22));
	assert_true(position(&f, 23) < position(&f, 22));
	expect(&f, 21, 20, 8);
	expect(&f, 22, 20, 8);
	/* The first one founds the session anew, and clones the others. */
	expect(&f, 23, 20, 8);
	expect(&f, 24, 0, 0);
	expect(&f, 25, 23, 8);
	end(&f);
}

static void test_not_inherited(void **state)
{
	struct family f = {.tree = FERRY__TREE__INIT};

	(void)state;
	add(&f, 10, 1, 10, 1, 8);
	add(&f, 11, 10, 10, 1, 8);
	add(&f, 12, 10, 10, 1, 8);
	add(&f, 13, 12, 10, 1, 8);
	f.vma[0][0].flags = FERRY__VMA_FLAG__VMA_DONTFORK;
	f.vma[2][0].flags = FERRY__VMA_FLAG__VMA_WIPEONFORK;
	plan(&f);
	expect(&f, 11, 0, 0);
	expect(&f, 12, 11, 8);
	expect(&f, 13, 0, 0);
	end(&f);
}

/* A tree out of a damaged image. */
static void test_circle(void **state)
{
	struct family f = {.tree = FERRY__TREE__INIT};

	(void)state;
	add(&f, 10, 1, 10, 1, 8);
	add(&f, 11, 12, 10, 1, 8);
	add(&f, 12, 11, 10, 1, 8);
	add(&f, 13, 13, 10, 1, 8);
	plan(&f);
	for (int pid = 10; pid <= 13; pid++)
		position(&f, pid);
	kin_free(f.kin, f.tree.n_processes);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_parents),          cmocka_unit_test(test_dead_parent),
		cmocka_unit_test(test_not_from_sibling), cmocka_unit_test(test_sessions),
		cmocka_unit_test(test_not_inherited),    cmocka_unit_test(test_circle),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
