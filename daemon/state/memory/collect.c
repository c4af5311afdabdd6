/* SPDX-License-Identifier: Apache-2.0 */
/* The first phase of a round: the backend is asked what was written. (pages.c has the whole of it.) */
#include "state/memory/memory.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "base/util.h"
#include "state/memory/huge.h"
#include "track/calls.h"

#define SPARE_VMAS 2048         /* of vm.max_map_count, which is 65530 */
#define SPAN_VMA   (1ull << 20) /* see span_from */
#define SPAN_ALL   (16ull << 20)

static uint32_t dirty_kind(const Ferry__Vma *v)
{
	if (v->flags & FERRY__VMA_FLAG__VMA_HUGETLB)
		return v->shared ? DIRTY_VMA_SHARED_HUGETLB : DIRTY_VMA_HUGETLB;
	if (v->shared)
		return DIRTY_VMA_SHARED;
	return v->kind == FERRY__VMA_KIND__VMA_ANON ? DIRTY_VMA_ANON : DIRTY_VMA_PRIVATE_FILE;
}

static void add_unsure(struct page_plan *plan, uint64_t start, uint64_t end)
{
	page_set_add(&plan->written, start, end);
	page_set_add(&plan->unsure, start, end);
}

/*
 * A new VMA that is tracked never merges with its neighbour, as each got its anon_vma before they could.  A
 * program that grows piece by piece has one VMA more with every round then; left alone, the pieces merge with
 * each other.  So what comes late is left alone where the program would run into its limit.
 */
static bool too_many_vmas(const struct memory *m, const struct memory_process *mp)
{
	return mp->collected && mp->mm->n_vmas + SPARE_VMAS > m->max_map_count;
}

/* Arm @v; all of it counts as written. What cannot be tracked would go again in every round: it goes once,
 * frozen (it stays out of `armed`, so the next round tries again: the refusal may have been a race with
 * munmap). */
static int arm_and_add(struct memory *m, struct memory_process *mp, const struct dirty_vma *v, bool final,
		       struct page_plan *plan, struct error *e)
{
	char why[256] = "";

	page_set_remove_range(&mp->armed, v->start, v->end);
	if (final)
		add_unsure(plan, v->start, v->end);
	if (final || !(m->backend.ops->kinds & DIRTY_KIND(v->kind)) || too_many_vmas(m, mp))
		return 0;
	int r = backend_arm(&m->backend, mp->session, v, why, sizeof(why));

	if (r == -ESRCH)
		return error_set(e, ESRCH, "pid %d: track 0x%llx-0x%llx", mp->pid,
				 (unsigned long long)v->start, (unsigned long long)v->end);
	if (r == 0) {
		page_set_add(&mp->armed, v->start, v->end);
		page_set_add(&plan->written, v->start, v->end);
	}
	return 0;
}

/* What lies in the plan's VMA of one range of an answer. */
static void add_range(struct page_plan *plan, const struct dirty_range *r, bool final)
{
	uint64_t start = MAX(r->start, plan->start), end = MIN(r->end, plan->end);

	if (start >= end || !(r->flags & DIRTY_WRITTEN))
		return;
	page_set_add(&plan->written, start, end);
	if (r->flags & DIRTY_UNSURE)
		page_set_add(&plan->unsure, start, end);
	if (final)
		page_set_add(r->flags & DIRTY_PRESENT ? &plan->present : &plan->absent, start, end);
}

/* What was written in @v, which is armed. */
static int collect_piece(struct memory *m, struct memory_process *mp, const struct dirty_vma *v, bool final,
			 struct page_plan *plan, struct error *e)
{
	const struct dirty_range *ranges;
	char why[256] = "";
	ssize_t n = backend_collect(&m->backend, mp->session, v, final ? DIRTY_FINAL : DIRTY_ROUND, &ranges,
				    why, sizeof(why));

	if (n == -ESRCH)
		return error_set(e, ESRCH, "pid %d: collect written pages of 0x%llx-0x%llx", mp->pid,
				 (unsigned long long)v->start, (unsigned long long)v->end);
	if (n < 0)
		return arm_and_add(m, mp, v, final, plan, e);
	for (ssize_t i = 0; i < n; i++)
		add_range(plan, &ranges[i], final);
	return 0;
}

/* Written pages of one VMA: pieces that are armed are collected, the others armed. */
static int collect_vma(struct memory *m, struct memory_process *mp, const Ferry__Vma *v, bool final,
		       struct page_plan *plan, struct error *e)
{
	struct page_set vma = PAGE_SET_INIT, armed = PAGE_SET_INIT, fresh = PAGE_SET_INIT;
	struct dirty_vma dv = {.kind = dirty_kind(v)};
	int r = 0;

	if (!mp->session || (final && mp->unseen_writes)) {
		if (final)
			add_unsure(plan, v->start, v->end);
		return 0;
	}
	page_set_add(&vma, v->start, v->end);
	page_set_and(&vma, &mp->armed, &armed);
	page_set_minus(&vma, &mp->armed, &fresh);
	for (size_t i = 0; i < armed.n && r >= 0; i++) {
		dv.start = armed.r[i].start;
		dv.end = armed.r[i].end;
		r = collect_piece(m, mp, &dv, final, plan, e);
	}
	for (size_t i = 0; i < fresh.n && r >= 0; i++) {
		dv.start = fresh.r[i].start;
		dv.end = fresh.r[i].end;
		r = arm_and_add(m, mp, &dv, final, plan, e);
	}
	page_set_deinit(&vma);
	page_set_deinit(&armed);
	page_set_deinit(&fresh);
	return r;
}

struct memory_object *memory_object(const struct memory *m, uint64_t id)
{
	for (size_t i = 0; i < m->n_objects; i++)
		if (m->objects[i]->id == id)
			return m->objects[i];
	return NULL;
}

static void move_to_object(struct memory_object *o, const Ferry__Vma *v, const struct page_plan *plan)
{
	uint64_t shift = v->offset - v->start;

	for (size_t i = 0; o && i < plan->written.n; i++)
		page_set_add(&o->dirty, plan->written.r[i].start + shift, plan->written.r[i].end + shift);
}

static void note_untracked(const struct memory_process *mp, struct memory_object *o, const Ferry__Vma *v)
{
	if (o && (v->prot & PROT_WRITE) && !page_set_covers(&mp->armed, v->start, v->end))
		o->untracked = true;
}

static struct page_plan *new_plan(struct memory_process *mp, const Ferry__Vma *v)
{
	struct page_plan *plan = &mp->plan[mp->n_plan++];
	/* Of private huge pages drops are not reported either, and a page may be that of the file. */
	bool hugetlb = hugetlb_is_private(v);

	*plan = (struct page_plan){.start = v->start,
				   .end = v->end,
				   .unit = hugetlb ? HUGE_PAGE_BYTES : PAGE_SIZE_BYTES,
				   .private_file = v->kind != FERRY__VMA_KIND__VMA_ANON || hugetlb};
	return plan;
}

/* Pages whose last reading was no good, or came too soon. */
static void look_again(struct memory *m, struct memory_process *mp, struct page_plan *plan, bool final)
{
	struct page_set unread = PAGE_SET_INIT, ripe = PAGE_SET_INIT;

	if (page_set_overlaps(&mp->unread, plan->start, plan->end)) {
		struct page_set mine = PAGE_SET_INIT;

		page_set_add(&mine, plan->start, plan->end);
		page_set_and(&mp->unread, &mine, &unread);
		page_set_merge(&plan->written, &unread);
		page_set_remove(&mp->unread, &unread);
		page_set_deinit(&mine);
	}
	if (mp->n_young)
		young_take(mp, final ? 0 : callers_gone(m, mp->collected), plan->start, plan->end, final,
			   &ripe);
	page_set_minus(&ripe, &plan->written, &plan->again);
	page_set_merge(&plan->written, &plan->again);
	page_set_deinit(&unread);
	page_set_deinit(&ripe);
}

/* Bytes of what @v maps, as the layout has it; 0: not known, or a device. */
static uint64_t backing_size(const struct memory *m, const Ferry__Vma *v)
{
	const struct memory_object *o = v->object ? memory_object(m, v->object) : NULL;

	return v->kind == FERRY__VMA_KIND__VMA_FILE ? v->file_size : o ? o->size : 0;
}

/* Behind the end of a file there are no pages. What is found there belongs to another mapping, made since the
 * layout was read, or the file has grown: a later round has it, with its layout. */
static void put_off_beyond(const struct memory *m, struct memory_process *mp, const Ferry__Vma *v,
			   struct page_plan *plan)
{
	uint64_t size = backing_size(m, v), end = size > v->offset ? v->start + (size - v->offset) : v->start;
	struct page_set beyond = PAGE_SET_INIT, late = PAGE_SET_INIT;

	if (!size)
		return;
	page_set_add(&beyond, MIN((end + plan->unit - 1) / plan->unit * plan->unit, v->end), v->end);
	page_set_and(&plan->written, &beyond, &late);
	page_set_merge(&mp->unread, &late);
	page_set_remove(&plan->written, &late);
	page_set_deinit(&beyond);
	page_set_deinit(&late);
}

static bool is_collected(const Ferry__Vma *v, bool final)
{
	if (layout_is_special(v) || layout_is_ring(v) || (v->flags & FERRY__VMA_FLAG__VMA_DROPPABLE))
		return false;
	if (v->shared && final)
		return false;                                      /* its content decides (shared.c) */
	return !v->shared || v->kind != FERRY__VMA_KIND__VMA_FILE; /* the file has it */
}

static int plan_vma(struct memory *m, struct memory_process *mp, const Ferry__Vma *v, bool final,
		    struct error *e)
{
	struct page_plan *plan = new_plan(mp, v);
	int r = collect_vma(m, mp, v, final, plan, e);

	if (r < 0)
		return r;
	if (v->shared) {
		move_to_object(memory_object(m, v->object), v, plan);
		note_untracked(mp, memory_object(m, v->object), v);
		page_set_deinit(&plan->written);
		page_set_deinit(&plan->unsure);
		page_set_deinit(&plan->present);
		page_set_deinit(&plan->absent);
		mp->n_plan--;
		return 0;
	}
	look_again(m, mp, plan, final);
	if (!final)
		put_off_beyond(m, mp, v, plan);
	return 0;
}

/*
 * How many VMAs from number @i on can be asked for by one call: small private ones side by side, of one kind,
 * all armed.  With thousands of them the calls are what a round costs.  If one of them has changed, all of
 * them count as written: so they must be small, and not too many.
 */
static size_t span_from(const struct memory_process *mp, size_t i, bool final)
{
	const Ferry__Vma *first = mp->mm->vmas[i], *v = first;
	size_t n = 0;

	if (!mp->session || (final && mp->unseen_writes))
		return 0;
	while (is_collected(v, final) && !v->shared && v->end - v->start <= SPAN_VMA &&
	       v->end - first->start <= SPAN_ALL && dirty_kind(v) == dirty_kind(first) &&
	       page_set_covers(&mp->armed, v->start, v->end)) {
		n++;
		if (i + n == mp->mm->n_vmas || mp->mm->vmas[i + n]->start != v->end)
			break;
		v = mp->mm->vmas[i + n];
	}
	return n;
}

/* The @n VMAs from number @i on by one call. */
static int plan_span(struct memory *m, struct memory_process *mp, size_t i, size_t n, bool final,
		     struct error *e)
{
	Ferry__Vma **v = &mp->mm->vmas[i];
	struct dirty_vma all = {.kind = dirty_kind(v[0]), .start = v[0]->start, .end = v[n - 1]->end};
	const struct dirty_range *ranges;
	char why[256] = "";
	ssize_t count = backend_collect(&m->backend, mp->session, &all, final ? DIRTY_FINAL : DIRTY_ROUND,
					&ranges, why, sizeof(why)),
		at = 0;
	int r = 0;

	if (count == -ESRCH)
		return error_set(e, ESRCH, "pid %d: collect written pages of 0x%llx-0x%llx", mp->pid,
				 (unsigned long long)all.start, (unsigned long long)all.end);
	for (size_t k = 0; k < n && r >= 0; k++) {
		struct page_plan *plan = new_plan(mp, v[k]);
		struct dirty_vma one = {.kind = all.kind, .start = v[k]->start, .end = v[k]->end};

		if (count < 0)
			r = arm_and_add(m, mp, &one, final, plan, e);
		while (at < count && ranges[at].end <= plan->start)
			at++;
		for (ssize_t j = at; j < count && ranges[j].start < plan->end; j++)
			add_range(plan, &ranges[j], final);
		look_again(m, mp, plan, final);
		if (!final)
			put_off_beyond(m, mp, v[k], plan);
	}
	return r;
}

static bool same_backing(const Ferry__Vma *a, const Ferry__Vma *b)
{
	if (a->kind != b->kind || a->shared != b->shared || a->object != b->object)
		return false;
	if (a->kind == FERRY__VMA_KIND__VMA_ANON && !a->shared)
		return true;
	return a->offset - a->start == b->offset - b->start && !strcmp(a->path, b->path);
}

/* The other side maps it anew, too: what it was sent is gone there. */
static void forget_range(struct memory_process *mp, uint64_t start, uint64_t end)
{
	page_set_remove_range(&mp->armed, start, end);
	if (mp->hashes)
		page_hashes_forget(mp->hashes, start, end);
}

void memory_forget_replaced(struct memory_process *mp, const Ferry__Mm *old, const Ferry__Mm *now)
{
	size_t j = 0;

	for (size_t i = 0; i < now->n_vmas; i++) {
		const Ferry__Vma *v = now->vmas[i];

		while (j < old->n_vmas && old->vmas[j]->end <= v->start)
			j++;
		for (size_t k = j; k < old->n_vmas && old->vmas[k]->start < v->end; k++)
			if (!same_backing(old->vmas[k], v))
				forget_range(mp, MAX(old->vmas[k]->start, v->start),
					     MIN(old->vmas[k]->end, v->end));
	}
}

/* What is no longer mapped is void at the other side too: something else may be mapped there later. */
static void forget_unmapped(struct memory_process *mp)
{
	struct page_set all = PAGE_SET_INIT, gone = PAGE_SET_INIT;

	for (size_t i = 0; i < mp->mm->n_vmas; i++)
		page_set_add(&all, mp->mm->vmas[i]->start, mp->mm->vmas[i]->end);
	page_set_minus(&mp->sent, &all, &mp->unmapped);
	page_set_minus(&mp->armed, &all, &gone);
	page_set_remove(&mp->armed, &gone);
	page_set_deinit(&gone);
	page_set_deinit(&all);
}

/* The backend's begin or end of a pass. What fails there leaves nothing armed. */
static int mark_pass(const struct memory *m, struct memory_process *mp,
		     int (*slot)(const struct backend *b, struct dirty_session *s,
				 enum dirty_collect_mode mode, char *why, size_t n),
		     bool final, struct error *e)
{
	char why[256] = "";
	int r = mp->session
			? slot(&m->backend, mp->session, final ? DIRTY_FINAL : DIRTY_ROUND, why, sizeof(why))
			: 0;

	if (r == -ESRCH)
		return error_set(e, ESRCH, "pid %d: collect written pages", mp->pid);
	if (r < 0)
		page_set_clear(&mp->armed);
	return 0;
}

int memory_collect(struct memory *m, struct process *p, bool final, struct error *e)
{
	struct memory_process *mp = p->data;

	memory_plan_clear(mp);
	mp->plan = xcalloc(mp->mm->n_vmas + 1, sizeof(*mp->plan));
	forget_unmapped(mp);
	int r = mark_pass(m, mp, backend_begin, final, e);

	for (size_t i = 0, n; i < mp->mm->n_vmas && r >= 0; i += n) {
		n = span_from(mp, i, final);
		if (n > 1) {
			r = plan_span(m, mp, i, n, final, e);
			continue;
		}
		n = 1;
		if (is_collected(mp->mm->vmas[i], final))
			r = plan_vma(m, mp, mp->mm->vmas[i], final, e);
	}
	if (r >= 0)
		r = mark_pass(m, mp, backend_end, final, e);
	mp->collected = now_ns();
	return r;
}
