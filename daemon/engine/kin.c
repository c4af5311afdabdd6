/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/kin.h"

#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "state/memory/memory.h"

#define NOBODY    SIZE_MAX
#define MAX_TRIES 16 /* siblings that are compared with the parent */

struct node {
	Ferry__TreeProcess *tp;
	const Ferry__Mm *mm;
	size_t index; /* in the tree as it was */
	size_t parent;
	int32_t born;    /* session its skeleton starts in */
	bool in_parents; /* needs the session that its parent has in the end */
	bool dead;       /* in a session whose leader is dead, and that it does not get from its parent */
	size_t creator;  /* that clones it */
	bool inherits;
	size_t first_child, last_child, next; /* by creator, in order */
};

struct plan {
	struct node *v;
	size_t n;
	size_t *order; /* parents' children together, in the order of their making */
	size_t *by_pid;
};

static int by_pid(const void *a, const void *b, void *ctx)
{
	const struct node *x = (const struct node *)ctx + *(const size_t *)a;
	const struct node *y = (const struct node *)ctx + *(const size_t *)b;

	return x->tp->pid < y->tp->pid ? -1 : x->tp->pid > y->tp->pid;
}

static size_t find(const struct plan *p, int32_t pid)
{
	size_t lo = 0, hi = p->n;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (p->v[p->by_pid[mid]].tp->pid < pid)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo < p->n && p->v[p->by_pid[lo]].tp->pid == pid ? p->by_pid[lo] : NOBODY;
}

static bool founds_session(const struct node *x)
{
	return x->tp->sid == x->tp->pid;
}

/* Sessions as the skeletons will have them; parents come before their children. */
static void place(struct plan *p, size_t i)
{
	struct node *x = &p->v[i];

	x->parent = find(p, x->tp->ppid);
	if (x->parent != NOBODY && x->parent >= i)
		x->parent = NOBODY;
	x->creator = x->parent;
	x->born = x->tp->sid;
	if (x->parent == NOBODY)
		return;
	const struct node *parent = &p->v[x->parent];

	x->in_parents = x->tp->sid == parent->tp->sid || founds_session(x);
	if (x->in_parents)
		x->born = parent->tp->sid;
	else
		x->dead = x->tp->sid != parent->born && find(p, x->tp->sid) == NOBODY;
}

static int by_making(const void *a, const void *b, void *ctx)
{
	const struct node *x = (const struct node *)ctx + *(const size_t *)a;
	const struct node *y = (const struct node *)ctx + *(const size_t *)b;

	if (x->parent != y->parent)
		return x->parent < y->parent ? -1 : 1;
	if (x->in_parents != y->in_parents)
		return x->in_parents ? 1 : -1;
	if (x->tp->start_time != y->tp->start_time)
		return x->tp->start_time < y->tp->start_time ? -1 : 1;
	return x->index < y->index ? -1 : x->index > y->index;
}

/* One address space by origin: no exec lies between them. */
static bool same_origin(const struct node *a, const struct node *b)
{
	return a->mm && b->mm && a->mm->start_stack == b->mm->start_stack &&
	       !layout_is_other_program(a->mm, b->mm);
}

static bool can_make(const struct node *s, const struct node *x)
{
	if (x->dead)
		return s->dead && s->tp->sid == x->tp->sid;
	return !s->dead && !founds_session(s) && s->in_parents == x->in_parents && s->born == x->born &&
	       s->tp->exit_signal == x->tp->exit_signal && same_origin(s, x);
}

/* Bytes of the address space that @x could inherit from @s. */
static uint64_t worth(const struct node *s, const struct node *x)
{
	struct page_set common = PAGE_SET_INIT;

	if (!same_origin(s, x))
		return 0;
	layout_common(s->mm, x->mm, true, &common);
	uint64_t bytes = page_set_bytes(&common);

	page_set_deinit(&common);
	return bytes;
}

/* order[from..i) are the siblings that are made before order[i]. What a sibling has and the parent has not
 * came from a parent that is dead; where the parent has as much, it is the parent's. */
static void find_creator(struct plan *p, size_t from, size_t i)
{
	struct node *x = &p->v[p->order[i]];
	const struct node *parent = &p->v[x->parent];
	uint64_t best = worth(parent, x);
	unsigned tries = 0;

	x->inherits = best > 0;
	for (size_t j = from; j < i && (x->dead || tries < MAX_TRIES); j++) {
		struct node *s = &p->v[p->order[j]];

		/* Not those who have it from a sibling themselves: that one is asked. */
		if ((s->creator != s->parent && !x->dead) || !can_make(s, x))
			continue;
		uint64_t w = worth(s, x);

		tries++;
		/* In a session without leader there is no choice: the first one clones the others. */
		if (!x->dead && w <= best)
			continue;
		best = w;
		x->creator = p->order[j];
		x->inherits = w > 0;
		if (x->dead)
			return;
	}
}

static void append(struct plan *p, size_t i)
{
	struct node *x = &p->v[i];

	x->next = NOBODY;
	if (x->creator == NOBODY)
		return;
	struct node *c = &p->v[x->creator];

	if (c->first_child == NOBODY)
		c->first_child = i;
	else
		p->v[c->last_child].next = i;
	c->last_child = i;
}

/* Creators before those they make, one line of descent after the other. */
static size_t walk(const struct plan *p, size_t *ret)
{
	cleanup_free size_t *stack = xcalloc(p->n + 1, sizeof(*stack));
	size_t n = 0, depth = 0;

	for (size_t i = 0; i < p->n; i++) {
		if (p->v[i].creator != NOBODY)
			continue;
		stack[depth++] = i;
		while (depth) {
			size_t at = stack[--depth];

			ret[n++] = at;
			if (p->v[at].next != NOBODY && p->v[at].creator != NOBODY)
				stack[depth++] = p->v[at].next;
			if (p->v[at].first_child != NOBODY)
				stack[depth++] = p->v[at].first_child;
		}
	}
	return n;
}

static struct stream_kin *tell(const struct plan *p, const size_t *order, Ferry__Tree *tree,
			       const Ferry__Mm **mm)
{
	struct stream_kin *k = xcalloc(p->n, sizeof(*k));

	for (size_t i = 0; i < p->n; i++) {
		const struct node *x = &p->v[order[i]];

		tree->processes[i] = x->tp;
		mm[i] = x->mm;
		k[i].pid = x->tp->pid;
		if (!x->inherits || x->creator == NOBODY)
			continue;
		k[i].from = p->v[x->creator].tp->pid;
		layout_common(p->v[x->creator].mm, x->mm, true, &k[i].common);
	}
	return k;
}

struct stream_kin *kin_plan(Ferry__Tree *tree, const Ferry__Mm **mm)
{
	size_t n = tree->n_processes;
	cleanup_free struct node *v = xcalloc(n, sizeof(*v));
	cleanup_free size_t *order = xcalloc(n, sizeof(*order)), *pids = xcalloc(n, sizeof(*pids));
	struct plan p = {v, n, order, pids};

	for (size_t i = 0; i < n; i++) {
		v[i] = (struct node){.tp = tree->processes[i],
				     .mm = mm[i],
				     .index = i,
				     .first_child = NOBODY,
				     .next = NOBODY};
		order[i] = pids[i] = i;
	}
	qsort_r(pids, n, sizeof(*pids), by_pid, v);
	for (size_t i = 0; i < n; i++)
		place(&p, i);
	qsort_r(order, n, sizeof(*order), by_making, v);
	for (size_t from = 0, to; from < n; from = to) {
		for (to = from + 1; to < n && v[order[to]].parent == v[order[from]].parent; to++)
			;
		for (size_t i = from; i < to && v[order[from]].parent != NOBODY; i++)
			find_creator(&p, from, i);
	}
	for (size_t i = 0; i < n; i++)
		append(&p, order[i]);
	walk(&p, pids);
	return tell(&p, pids, tree, mm);
}

void kin_free(struct stream_kin *k, size_t n)
{
	for (size_t i = 0; k && i < n; i++)
		page_set_deinit(&k[i].common);
	free(k);
}
