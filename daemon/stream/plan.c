/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A sweep over the addresses of each (space, id): runs enter at their start, the heap gives the newest of
 * those that are open, and a piece ends where that changes. n log n whatever the order of the runs is, which
 * matters: a chain of long dumps has millions of them, in the order in which the pages were written.
 *
 * SAME runs send the sweep to another process, as it was when the run was written: the same sweep with the
 * runs before that. Such runs stand together (a burst: nothing lies between them), so each burst is one more
 * sweep, unless the result for that state of the other process is there already.
 */
#include "stream/plan.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"

#define NEVER      SIZE_MAX    /* "before": no limit */
#define MAX_DEPTH  1000        /* steps from process to process */
#define MAX_MEMORY (64u << 20) /* pieces of states that are remembered */

struct state { /* of a group, with the oldest @runs of its runs */
	struct state *next;
	size_t runs;
	struct piece_list pieces;
};

struct group { /* runs of one space and id: sorted[from..to) */
	uint32_t space;
	uint64_t id;
	size_t from, to;
	struct state *states; /* asked for so far */
};

struct sweep {
	struct plan *plan;
	size_t *sorted; /* runs by space, id, address */
	size_t *heap;   /* runs that were entered, newest first */
	size_t n_heap;
	struct group *groups;
	size_t n_groups;
	size_t before;     /* only runs older than this one count */
	size_t remembered; /* pieces in states */
};

void plan_deinit(struct plan *p)
{
	free(p->runs);
	free(p->pieces);
	*p = (struct plan){0};
}

static int grow(void **array, size_t n, size_t *cap, size_t size, struct error *e)
{
	if (n < *cap)
		return 0;
	size_t want = MAX(*cap * 2, 1024u);
	void *q = realloc(*array, want * size);

	if (!q)
		return error_set(e, ENOMEM, "table of %zu page runs", n);
	*array = q;
	*cap = want;
	return 0;
}

int plan_add(struct plan *p, const struct wire_run *r, uint32_t dir, struct error *e)
{
	int rc = grow((void **)&p->runs, p->n_runs, &p->cap_runs, sizeof(*p->runs), e);

	if (rc < 0)
		return rc;
	if (p->n_runs == UINT32_MAX)
		return error_say(e, EOVERFLOW, "more than %u page runs", UINT32_MAX);
	const struct plan_run *last = p->n_runs ? &p->runs[p->n_runs - 1] : NULL;
	bool same = r->flags & PAGE_RUN_SAME;
	bool goes_on = same && last && last->dir == dir && last->run.flags & PAGE_RUN_SAME &&
		       last->run.id == r->id && last->run.offset == r->offset;

	p->runs[p->n_runs] = (struct plan_run){*r, dir, p->n_runs, goes_on ? last->burst : p->n_runs};
	p->n_runs++;
	return 0;
}

int piece_add(struct piece_list *l, const struct plan_piece *p, struct error *e)
{
	int rc = grow((void **)&l->v, l->n, &l->cap, sizeof(*l->v), e);

	if (rc == 0)
		l->v[l->n++] = *p;
	return rc;
}

static void take_list(struct plan *p, struct piece_list *l)
{
	free(p->pieces);
	p->pieces = l->v;
	p->n_pieces = l->n;
	p->cap_pieces = l->cap;
	*l = (struct piece_list){0};
}

int plan_all(struct plan *p, struct error *e)
{
	struct piece_list all = {0};
	int rc = 0;

	for (size_t i = 0; i < p->n_runs && rc == 0; i++) {
		const struct wire_run *r = &p->runs[i].run;
		struct plan_piece piece = {i, r->addr, r->length, r->id, 0, PIECE_RUN};

		if (r->flags & PAGE_RUN_SAME) {
			piece.kind = PIECE_SAME;
			piece.from = r->offset;
		}
		rc = piece_add(&all, &piece, e);
	}
	take_list(p, &all);
	return rc;
}

static int compare(uint64_t a, uint64_t b)
{
	return a < b ? -1 : a > b;
}

static int by_address(const void *a, const void *b, void *ctx)
{
	const struct plan_run *x = (const struct plan_run *)ctx + *(const size_t *)a;
	const struct plan_run *y = (const struct plan_run *)ctx + *(const size_t *)b;
	int c = compare(x->run.space, y->run.space);

	c = c ? c : compare(x->run.id, y->run.id);
	c = c ? c : compare(x->run.addr, y->run.addr);
	return c ? c : compare(x->order, y->order);
}

static bool newer(const struct plan *p, size_t a, size_t b)
{
	const struct plan_run *x = &p->runs[a], *y = &p->runs[b];

	return x->dir != y->dir ? x->dir < y->dir : x->order > y->order;
}

static void heap_push(struct sweep *s, size_t run)
{
	size_t i = s->n_heap++;

	for (; i && newer(s->plan, run, s->heap[(i - 1) / 2]); i = (i - 1) / 2)
		s->heap[i] = s->heap[(i - 1) / 2];
	s->heap[i] = run;
}

static void heap_pop(struct sweep *s)
{
	size_t run = s->heap[--s->n_heap], i = 0, child;

	for (; (child = 2 * i + 1) < s->n_heap; i = child) {
		if (child + 1 < s->n_heap && newer(s->plan, s->heap[child + 1], s->heap[child]))
			child++;
		if (!newer(s->plan, s->heap[child], run))
			break;
		s->heap[i] = s->heap[child];
	}
	s->heap[i] = run;
}

static uint64_t run_end(const struct sweep *s, size_t run)
{
	return s->plan->runs[run].run.addr + s->plan->runs[run].run.length;
}

/* Newest open run of [pos, next): its piece. The same run may go on after a border that another run made. */
static int cover(struct sweep *s, uint64_t pos, uint64_t next, struct piece_list *out, struct error *e)
{
	struct plan *p = s->plan;
	size_t run = s->heap[0];
	struct plan_piece *last = out->n ? &out->v[out->n - 1] : NULL;

	if (p->runs[run].run.flags & PAGE_RUN_DROP)
		return 0;
	if (last && last->run == run && last->addr + last->length == pos) {
		last->length += next - pos;
		return 0;
	}
	return piece_add(
		out,
		&(struct plan_piece){run, pos, next - pos, p->runs[run].run.id, 0,
				     p->runs[run].run.flags & PAGE_RUN_SAME ? PIECE_SAME : PIECE_RUN},
		e);
}

static bool counts(const struct sweep *s, size_t run)
{
	return s->before == NEVER || newer(s->plan, s->before, run);
}

/* Pieces of one group by address, as the runs before s->before have it. */
static int sweep_group(struct sweep *s, const struct group *g, struct piece_list *out, struct error *e)
{
	size_t i = g->from;
	uint64_t pos = 0;

	s->n_heap = 0;
	for (;;) {
		while (i < g->to && !counts(s, s->sorted[i]))
			i++;
		while (s->n_heap && run_end(s, s->heap[0]) <= pos)
			heap_pop(s);
		if (!s->n_heap) {
			if (i == g->to)
				return 0;
			pos = s->plan->runs[s->sorted[i]].run.addr;
		}
		for (; i < g->to && s->plan->runs[s->sorted[i]].run.addr == pos; i++)
			if (counts(s, s->sorted[i]))
				heap_push(s, s->sorted[i]);
		while (i < g->to && !counts(s, s->sorted[i]))
			i++;
		uint64_t next = run_end(s, s->heap[0]);

		if (i < g->to)
			next = MIN(next, s->plan->runs[s->sorted[i]].run.addr);
		int rc = cover(s, pos, next, out, e);

		if (rc < 0)
			return rc;
		pos = next;
	}
}

/* --- SAME runs -------------------------------------------------------------------------------------------
 */

static struct group *find_group(const struct sweep *s, uint64_t id)
{
	size_t lo = 0, hi = s->n_groups;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;
		const struct group *g = &s->groups[mid];

		if (g->space > SPACE_PROCESS || g->id >= id)
			hi = mid;
		else
			lo = mid + 1;
	}
	return lo < s->n_groups && s->groups[lo].space == SPACE_PROCESS && s->groups[lo].id == id
		       ? &s->groups[lo]
		       : NULL;
}

static int resolve(struct sweep *s, const struct group *g, size_t before, unsigned depth,
		   struct piece_list *ret, struct error *e);

/* @g as it was before run @burst. */
static int look_back(struct sweep *s, struct group *g, size_t burst, unsigned depth,
		     const struct piece_list **ret, struct error *e)
{
	struct piece_list found = {0};
	size_t runs = 0;

	for (size_t i = g->from; i < g->to; i++)
		runs += newer(s->plan, burst, s->sorted[i]);
	for (const struct state *st = g->states; st; st = st->next)
		if (st->runs == runs) {
			*ret = &st->pieces;
			return 0;
		}
	int rc = resolve(s, g, burst, depth + 1, &found, e);

	if (rc < 0) {
		free(found.v);
		return rc;
	}
	struct state *st = xcalloc(1, sizeof(*st));

	*st = (struct state){g->states, runs, found};
	g->states = st;
	s->remembered += found.n;
	*ret = &st->pieces;
	return 0;
}

/* Pieces @p->v[i..] of the burst of p->v[i], as @then has them. */
static int fill_burst(struct sweep *s, struct piece_list *p, size_t i, const struct piece_list *then,
		      struct piece_list *out, struct error *e)
{
	uint32_t burst = s->plan->runs[p->v[i].run].burst;
	size_t k = 0;
	int rc = 0;

	for (; i < p->n && rc == 0; i++) {
		struct plan_piece *want = &p->v[i];

		if (want->kind != PIECE_SAME || s->plan->runs[want->run].burst != burst)
			continue;
		want->kind = PIECE_DROP; /* done */
		while (k < then->n && then->v[k].addr + then->v[k].length <= want->addr)
			k++;
		for (size_t j = k; j < then->n && then->v[j].addr < want->addr + want->length && rc == 0;
		     j++) {
			struct plan_piece q = then->v[j];
			uint64_t start = MAX(q.addr, want->addr);
			uint64_t end = MIN(q.addr + q.length, want->addr + want->length);

			q.addr = start;
			q.length = end - start;
			q.id = want->id;
			rc = piece_add(out, &q, e);
		}
	}
	return rc;
}

static int by_piece_address(const void *a, const void *b)
{
	return compare(((const struct plan_piece *)a)->addr, ((const struct plan_piece *)b)->addr);
}

/* Pieces of a group by address, none of them SAME. */
static int resolve(struct sweep *s, const struct group *g, size_t before, unsigned depth,
		   struct piece_list *ret, struct error *e)
{
	struct piece_list raw = {0};
	bool any = false;

	if (depth > MAX_DEPTH || s->remembered > MAX_MEMORY)
		return error_say(e, EBADMSG,
				 "page runs of process %ju: too many steps to the data they share",
				 (uintmax_t)g->id);
	s->before = before;
	int rc = sweep_group(s, g, &raw, e);

	for (size_t i = 0; i < raw.n && rc == 0; i++) {
		if (raw.v[i].kind == PIECE_RUN) {
			rc = piece_add(ret, &raw.v[i], e);
			continue;
		}
		if (raw.v[i].kind != PIECE_SAME)
			continue;
		const struct plan_run *r = &s->plan->runs[raw.v[i].run];
		struct group *from = find_group(s, r->run.offset);
		const struct piece_list *then = NULL;

		any = true;
		if (!from) {
			raw.v[i].kind = PIECE_DROP;
			continue;
		}
		rc = look_back(s, from, r->burst, depth, &then, e);
		if (rc == 0)
			rc = fill_burst(s, &raw, i, then, ret, e);
	}
	free(raw.v);
	if (any && ret->n)
		qsort(ret->v, ret->n, sizeof(*ret->v), by_piece_address);
	return rc;
}

/* --- the plan --------------------------------------------------------------------------------------------
 */

static bool same_group(const struct plan_run *a, const struct plan_run *b)
{
	return a->run.space == b->run.space && a->run.id == b->run.id;
}

static int find_groups(struct sweep *s, struct error *e)
{
	const struct plan *p = s->plan;
	size_t cap = 0;

	for (size_t from = 0, to; from < p->n_runs; from = to) {
		const struct plan_run *r = &p->runs[s->sorted[from]];

		for (to = from + 1; to < p->n_runs && same_group(r, &p->runs[s->sorted[to]]); to++)
			;
		int rc = grow((void **)&s->groups, s->n_groups, &cap, sizeof(*s->groups), e);

		if (rc < 0)
			return rc;
		s->groups[s->n_groups++] = (struct group){r->run.space, r->run.id, from, to, NULL};
	}
	return 0;
}

static void forget_states(struct sweep *s)
{
	for (size_t i = 0; i < s->n_groups; i++)
		for (struct state *st = s->groups[i].states, *next; st; st = next) {
			next = st->next;
			free(st->pieces.v);
			free(st);
		}
}

int plan_newest(struct plan *p, struct error *e)
{
	size_t n = p->n_runs;
	cleanup_free size_t *sorted = malloc((n + 1) * sizeof(*sorted));
	cleanup_free size_t *heap = malloc((n + 1) * sizeof(*heap));
	struct sweep s = {.plan = p, .sorted = sorted, .heap = heap};
	struct piece_list all = {0};

	if (!sorted || !heap)
		return error_set(e, ENOMEM, "table of %zu page runs", n);
	for (size_t i = 0; i < n; i++)
		sorted[i] = i;
	qsort_r(sorted, n, sizeof(*sorted), by_address, p->runs);
	int rc = find_groups(&s, e);

	for (size_t i = 0; i < s.n_groups && rc == 0; i++) {
		struct piece_list one = {0};

		rc = resolve(&s, &s.groups[i], NEVER, 0, &one, e);
		for (size_t j = 0; j < one.n && rc == 0; j++)
			rc = piece_add(&all, &one.v[j], e);
		free(one.v);
	}
	take_list(p, &all);
	forget_states(&s);
	free(s.groups);
	return rc;
}

static int by_run(const void *a, const void *b)
{
	const struct plan_piece *x = a, *y = b;
	int c = compare(x->run, y->run);

	return c ? c : compare(x->addr, y->addr);
}

void pieces_sort_for_reading(struct plan_piece *v, size_t n)
{
	if (n)
		qsort(v, n, sizeof(*v), by_run);
}
