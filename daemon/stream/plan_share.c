/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sharing after fork, out of an image (docs/cow-sharing.md).
 *
 * Pieces of several processes that are of the same run and address are one page each, shared.  The order of
 * their making is played through here: what each process has at the destination (`now`), what the one that
 * is to be cloned from it needs there, and in the end what it has to have itself.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "stream/plan.h"

#define NOBODY SIZE_MAX

struct member {
	struct piece_list final; /* by address; points into the plan's pieces */
	struct piece_list want;  /* parts of it that others have too */
	struct piece_list now;   /* what it has at the destination so far */
	size_t holder;
	size_t next_done; /* list of those whose other pieces come at the same point */
};

struct interval { /* of the data of a run */
	size_t run;
	uint64_t start, end;
};

struct game {
	struct plan *plan;
	const struct stream_kin *kin;
	size_t n;
	struct member *m;
	struct interval *shared; /* had by two or more, by run and address */
	size_t n_shared;
	struct piece_list out;
};

/* --- lists by address ------------------------------------------------------------------------------------
 */

static int add_part(struct piece_list *to, const struct plan_piece *p, uint64_t start, uint64_t end,
		    struct error *e)
{
	struct plan_piece *last = to->n ? &to->v[to->n - 1] : NULL;
	struct plan_piece q = *p;

	if (start >= end)
		return 0;
	if (last && last->run == p->run && last->addr + last->length == start) {
		last->length += end - start;
		return 0;
	}
	q.addr = start;
	q.length = end - start;
	return piece_add(to, &q, e);
}

/* Parts of @a where @b has nothing, or (@exact) not the same data. */
static int minus(const struct piece_list *a, const struct piece_list *b, bool exact, struct piece_list *ret,
		 struct error *e)
{
	size_t j = 0;
	int rc = 0;

	for (size_t i = 0; i < a->n && rc == 0; i++) {
		const struct plan_piece *p = &a->v[i];
		uint64_t at = p->addr, end = p->addr + p->length;

		while (j < b->n && b->v[j].addr + b->v[j].length <= at)
			j++;
		for (size_t k = j; k < b->n && b->v[k].addr < end && rc == 0; k++) {
			if (exact && b->v[k].run != p->run)
				continue;
			rc = add_part(ret, p, at, b->v[k].addr, e);
			at = MAX(at, MIN(end, b->v[k].addr + b->v[k].length));
		}
		if (rc == 0)
			rc = add_part(ret, p, at, end, e);
	}
	return rc;
}

static int clip(const struct piece_list *a, const struct page_set *to, struct piece_list *ret,
		struct error *e)
{
	size_t j = 0;
	int rc = 0;

	for (size_t i = 0; i < a->n && rc == 0; i++) {
		const struct plan_piece *p = &a->v[i];
		uint64_t end = p->addr + p->length;

		while (j < to->n && to->r[j].end <= p->addr)
			j++;
		for (size_t k = j; k < to->n && to->r[k].start < end && rc == 0; k++)
			rc = add_part(ret, p, MAX(p->addr, to->r[k].start), MIN(end, to->r[k].end), e);
	}
	return rc;
}

static int by_address(const void *a, const void *b)
{
	const struct plan_piece *x = a, *y = b;

	return x->addr < y->addr ? -1 : x->addr > y->addr;
}

/* @a becomes @over, and what it was where that has nothing. */
static int overlay(struct piece_list *a, const struct piece_list *over, struct error *e)
{
	struct piece_list sum = {0};
	int rc = over->n ? minus(a, over, false, &sum, e) : 0;

	if (!over->n || rc < 0) {
		free(sum.v);
		return rc;
	}
	for (size_t i = 0; i < over->n && rc == 0; i++)
		rc = piece_add(&sum, &over->v[i], e);
	qsort(sum.v, sum.n, sizeof(*sum.v), by_address);
	free(a->v);
	*a = sum;
	return rc;
}

/* --- what is shared --------------------------------------------------------------------------------------
 */

static int by_data(const void *a, const void *b)
{
	const struct interval *x = a, *y = b;

	if (x->run != y->run)
		return x->run < y->run ? -1 : 1;
	return x->start < y->start ? -1 : x->start > y->start;
}

/* Data that two or more have. */
static int find_shared(struct game *g, struct error *e)
{
	size_t n = 0, cap = 1;

	for (size_t i = 0; i < g->n; i++)
		cap += g->m[i].final.n;
	cleanup_free struct interval *all = malloc(cap * sizeof(*all));

	g->shared = malloc(cap * sizeof(*g->shared));
	if (!all || !g->shared)
		return error_set(e, ENOMEM, "table of %zu shared page runs", cap);
	for (size_t i = 0; i < g->n; i++)
		for (size_t j = 0; j < g->m[i].final.n; j++) {
			const struct plan_piece *p = &g->m[i].final.v[j];

			if (run_has_data(g->plan->runs[p->run].run.flags))
				all[n++] = (struct interval){p->run, p->addr, p->addr + p->length};
		}
	qsort(all, n, sizeof(*all), by_data);
	uint64_t covered = 0;

	for (size_t i = 0; i < n; i++) {
		struct interval *last = g->n_shared ? &g->shared[g->n_shared - 1] : NULL;

		if (!i || all[i].run != all[i - 1].run)
			covered = 0;
		uint64_t end = MIN(all[i].end, covered);

		covered = MAX(covered, all[i].end);
		if (end <= all[i].start)
			continue;
		if (last && last->run == all[i].run && last->end >= all[i].start)
			last->end = MAX(last->end, end);
		else
			g->shared[g->n_shared++] = (struct interval){all[i].run, all[i].start, end};
	}
	return 0;
}

static int find_wanted(struct game *g, struct member *m, struct error *e)
{
	int rc = 0;

	for (size_t i = 0; i < m->final.n && rc == 0; i++) {
		const struct plan_piece *p = &m->final.v[i];
		size_t lo = 0, hi = g->n_shared;

		while (lo < hi) {
			size_t mid = lo + (hi - lo) / 2;
			const struct interval *s = &g->shared[mid];

			if (s->run > p->run || (s->run == p->run && s->end > p->addr))
				hi = mid;
			else
				lo = mid + 1;
		}
		for (; lo < g->n_shared && g->shared[lo].run == p->run &&
		       g->shared[lo].start < p->addr + p->length && rc == 0;
		     lo++)
			rc = add_part(&m->want, p, MAX(p->addr, g->shared[lo].start),
				      MIN(p->addr + p->length, g->shared[lo].end), e);
	}
	return rc;
}

/* --- the game --------------------------------------------------------------------------------------------
 */

static int emit(struct game *g, struct piece_list *l, uint64_t id, enum piece_kind kind, uint64_t from,
		struct error *e)
{
	size_t first = g->out.n;
	int rc = 0;

	for (size_t i = 0; i < l->n && rc == 0; i++) {
		struct plan_piece p = l->v[i], *last = g->out.n > first ? &g->out.v[g->out.n - 1] : NULL;

		p.id = id;
		p.kind = kind;
		p.from = from;
		if (kind != PIECE_RUN && last && last->addr + last->length == p.addr)
			last->length += p.length;
		else
			rc = piece_add(&g->out, &p, e);
	}
	if (kind == PIECE_RUN && g->out.n > first)
		pieces_sort_for_reading(g->out.v + first, g->out.n - first);
	return rc;
}

/* @j is cloned from @i: what @i must have for that, and what @j takes. */
static int offer(struct game *g, size_t i, size_t j, struct error *e)
{
	struct member *holder = &g->m[i], *child = &g->m[j];
	struct piece_list put = {0};
	int rc = clip(&child->want, &g->kin[j].common, &child->now, e);

	if (rc == 0)
		rc = minus(&child->now, &holder->now, true, &put, e);
	if (rc == 0)
		rc = emit(g, &put, g->kin[i].pid, PIECE_RUN, 0, e);
	if (rc == 0)
		rc = emit(g, &child->now, g->kin[j].pid, PIECE_SAME, g->kin[i].pid, e);
	if (rc == 0)
		rc = overlay(&holder->now, &put, e);
	free(put.v);
	return rc;
}

/* Nobody is to be cloned from @i any more. */
static int finish(struct game *g, size_t i, struct error *e)
{
	struct member *m = &g->m[i];
	struct piece_list gone = {0}, rest = {0};
	int rc = minus(&m->now, &m->final, false, &gone, e);

	if (rc == 0)
		rc = minus(&m->final, &m->now, true, &rest, e);
	if (rc == 0)
		rc = emit(g, &gone, g->kin[i].pid, PIECE_DROP, 0, e);
	if (rc == 0)
		rc = emit(g, &rest, g->kin[i].pid, PIECE_RUN, 0, e);
	free(gone.v);
	free(rest.v);
	free(m->now.v);
	m->now = (struct piece_list){0};
	return rc;
}

static int play(struct game *g, struct error *e)
{
	cleanup_free size_t *last = xcalloc(g->n, sizeof(*last)), *done = xcalloc(g->n, sizeof(*done));
	int rc = 0;

	for (size_t i = 0; i < g->n; i++) {
		last[i] = i;
		done[i] = NOBODY;
		if (g->m[i].holder != NOBODY)
			last[g->m[i].holder] = i;
	}
	for (size_t i = 0; i < g->n; i++) {
		g->m[i].next_done = done[last[i]];
		done[last[i]] = i;
	}
	for (size_t i = 0; i < g->n && rc == 0; i++) {
		if (g->m[i].holder != NOBODY)
			rc = offer(g, g->m[i].holder, i, e);
		for (size_t j = done[i]; j != NOBODY && rc == 0; j = g->m[j].next_done)
			rc = finish(g, j, e);
	}
	return rc;
}

/* --- who is who ------------------------------------------------------------------------------------------
 */

struct by_pid {
	uint64_t pid;
	size_t index;
};

static int compare_pid(const void *a, const void *b)
{
	const struct by_pid *x = a, *y = b;

	return x->pid < y->pid ? -1 : x->pid > y->pid;
}

static size_t index_of(const struct by_pid *table, size_t n, uint64_t pid)
{
	const struct by_pid key = {.pid = pid};
	const struct by_pid *found = pid && n ? bsearch(&key, table, n, sizeof(*table), compare_pid) : NULL;

	return found ? found->index : NOBODY;
}

/* The pieces of each process; those of objects and files at once into the result. */
static int deal(struct game *g, struct error *e)
{
	cleanup_free struct by_pid *table = xcalloc(g->n, sizeof(*table));
	struct plan *p = g->plan;
	int rc = 0;

	for (size_t i = 0; i < g->n; i++)
		table[i] = (struct by_pid){g->kin[i].pid, i};
	qsort(table, g->n, sizeof(*table), compare_pid);
	for (size_t i = 0; i < g->n; i++) {
		size_t holder = index_of(table, g->n, g->kin[i].from);

		g->m[i].holder = holder < i ? holder : NOBODY;
	}
	for (size_t from = 0, to; from < p->n_pieces && rc == 0; from = to) {
		const struct plan_piece *v = &p->pieces[from];
		uint32_t space = p->runs[v->run].run.space;

		for (to = from + 1; to < p->n_pieces && p->pieces[to].id == v->id &&
				    p->runs[p->pieces[to].run].run.space == space;
		     to++)
			;
		size_t i = space == SPACE_PROCESS ? index_of(table, g->n, v->id) : NOBODY;

		if (i != NOBODY)
			g->m[i].final = (struct piece_list){p->pieces + from, to - from, 0};
		for (size_t j = from; space != SPACE_PROCESS && j < to && rc == 0; j++)
			rc = piece_add(&g->out, &p->pieces[j], e);
	}
	pieces_sort_for_reading(g->out.v, g->out.n);
	return rc;
}

int plan_share(struct plan *p, const struct stream_kin *kin, size_t n, struct error *e)
{
	struct game g = {.plan = p, .kin = kin, .n = n};
	int rc;

	g.m = xcalloc(n, sizeof(*g.m));
	rc = deal(&g, e);
	if (rc == 0)
		rc = find_shared(&g, e);
	for (size_t i = 0; i < n && rc == 0; i++)
		rc = find_wanted(&g, &g.m[i], e);
	if (rc == 0)
		rc = play(&g, e);
	for (size_t i = 0; i < n; i++) {
		free(g.m[i].want.v);
		free(g.m[i].now.v);
	}
	free(g.m);
	free(g.shared);
	if (rc < 0) {
		free(g.out.v);
		return rc;
	}
	free(p->pieces);
	p->pieces = g.out.v;
	p->n_pieces = g.out.n;
	p->cap_pieces = g.out.cap;
	return 0;
}
