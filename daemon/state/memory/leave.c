/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Post-copy: which pages need not go before the target runs at the other side (docs/post-copy.md).
 *
 * Of what the last round would send those of private anonymous memory stay, and the other side drops what it
 * has of them (shared memory: leave_shared.c).  Not those whose content decides whether they go at all
 * (suspected pages that were sent before, and young ones): most of them are there already.
 */
#include "state/memory/memory.h"

#include "base/util.h"

/* What fork does with these is not what it does with a missing page, or the kernel writes them itself. */
#define NEVER                                                                                               \
	(FERRY__VMA_FLAG__VMA_GROWSDOWN | FERRY__VMA_FLAG__VMA_STACK | FERRY__VMA_FLAG__VMA_LOCKED |        \
	 FERRY__VMA_FLAG__VMA_LOCKONFAULT | FERRY__VMA_FLAG__VMA_HUGETLB | FERRY__VMA_FLAG__VMA_DROPPABLE | \
	 FERRY__VMA_FLAG__VMA_WIPEONFORK | VMA_UFFD_ANY)

#define BELOW (4 * PAGE_SIZE_BYTES) /* a signal frame with its extended state */

static void keep_around(struct page_set *s, uint64_t addr, uint64_t below, uint64_t above)
{
	uint64_t page = addr & ~(PAGE_SIZE_BYTES - 1);

	if (addr)
		page_set_add(s, page > below ? page - below : 0, page + PAGE_SIZE_BYTES + above);
}

void memory_keep_page(struct page_set *s, uint64_t addr)
{
	keep_around(s, addr, 0, 0);
}

void memory_keep_of_thread(struct page_set *s, uint64_t sp, uint64_t tp)
{
	keep_around(s, sp, BELOW, PAGE_SIZE_BYTES);
	keep_around(s, tp, PAGE_SIZE_BYTES, PAGE_SIZE_BYTES);
}

bool memory_may_stay(const Ferry__Vma *v)
{
	return v->kind == FERRY__VMA_KIND__VMA_ANON && !v->shared && !(v->flags & NEVER);
}

static void leave_of(struct memory_process *mp, struct page_plan *plan, const struct page_set *keep,
		     struct page_set *ret)
{
	struct page_set sure = PAGE_SET_INIT, compared = PAGE_SET_INIT, rest = PAGE_SET_INIT,
			stay = PAGE_SET_INIT;

	page_set_and(&plan->unsure, &mp->sent, &compared);
	page_set_minus(&plan->go, &plan->again, &sure);
	page_set_minus(&sure, &compared, &rest);
	page_set_minus(&rest, keep, &stay);
	page_set_remove(&plan->go, &stay);
	page_set_merge(&plan->drop, &stay);
	page_set_merge(ret, &stay);
	/* So that nobody takes what the other side has of it for what it is: no heir of a fork. */
	page_set_remove(&mp->sent, &stay);
	for (size_t i = 0; mp->hashes && i < stay.n; i++)
		page_hashes_forget(mp->hashes, stay.r[i].start, stay.r[i].end);
	page_set_deinit(&sure);
	page_set_deinit(&compared);
	page_set_deinit(&rest);
	page_set_deinit(&stay);
}

static void keep_of_objects(struct memory *m, const struct memory_process *mp, const struct page_set *keep)
{
	for (size_t i = 0; i < mp->mm->n_vmas; i++) {
		const Ferry__Vma *v = mp->mm->vmas[i];
		struct memory_object *o = v->object ? memory_object(m, v->object) : NULL;

		for (size_t k = 0; o && k < keep->n; k++)
			if (keep->r[k].start < v->end && keep->r[k].end > v->start)
				page_set_add(&o->keep, MAX(keep->r[k].start, v->start) - v->start + v->offset,
					     MIN(keep->r[k].end, v->end) - v->start + v->offset);
	}
}

void memory_leave(struct memory *m, struct process *p, const struct page_set *keep, struct page_set *ret)
{
	struct memory_process *mp = p->data;
	size_t v = 0;

	keep_of_objects(m, mp, keep);

	for (size_t i = 0; i < mp->n_plan; i++) {
		struct page_plan *plan = &mp->plan[i];

		while (v < mp->mm->n_vmas && mp->mm->vmas[v]->end <= plan->start)
			v++;
		if (v < mp->mm->n_vmas && memory_may_stay(mp->mm->vmas[v]) && plan->unit == PAGE_SIZE_BYTES)
			leave_of(mp, plan, keep, ret);
	}
}
