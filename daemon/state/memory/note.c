/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The third phase of a round for a target that is only observed: the books are kept as if what was planned
 * had been sent, but nothing is, and nothing is read.  Where the backend is not sure, reading is the only way
 * to know: there the pages are compared with their hashes, as send.c would.
 */
#include "state/memory/memory.h"

#include <errno.h>
#include <string.h>

#include "base/util.h"
#include "procfs/pagemap.h"

/* What of @set, in @mp or else in file @fd, differs from what was there before, is added to @ret. A page that
 * cannot be read has changed.
 */
static void compare(struct memory *m, const struct memory_process *mp, int fd, struct page_hashes *h,
		    const struct page_set *set, struct page_set *ret)
{
	for (size_t i = 0; i < set->n; i++)
		for (uint64_t at = set->r[i].start; at < set->r[i].end && !job_aborted();) {
			size_t want = MIN(set->r[i].end - at, (uint64_t)STREAM_MAX_RUN);
			ssize_t n = mp ? memory_read(mp, m->buffer, want, at)
				       : pread(fd, m->buffer, want, (off_t)at);

			if (n < (ssize_t)PAGE_SIZE_BYTES) {
				page_set_add(ret, at, at + PAGE_SIZE_BYTES);
				at += PAGE_SIZE_BYTES;
				continue;
			}
			for (ssize_t k = 0; k + (ssize_t)PAGE_SIZE_BYTES <= n; k += PAGE_SIZE_BYTES)
				if (!page_hashes_update(h, at + k, m->buffer + k))
					page_set_add(ret, at + k, at + k + PAGE_SIZE_BYTES);
			at += n & ~(PAGE_SIZE_BYTES - 1);
		}
}

static void forget(struct page_set *sent, struct page_hashes *h, const struct page_set *set)
{
	page_set_remove(sent, set);
	for (size_t i = 0; h && i < set->n; i++)
		page_hashes_forget(h, set->r[i].start, set->r[i].end);
}

static void add(struct page_set *to, const struct page_set *set)
{
	for (size_t i = 0; i < set->n; i++)
		page_set_add(to, set->r[i].start, set->r[i].end);
}

uint64_t memory_note(struct memory *m, struct process *p)
{
	struct memory_process *mp = p->data;
	struct page_set went = PAGE_SET_INIT, written = PAGE_SET_INIT, gone = PAGE_SET_INIT;

	if (memory_keeps_hashes(m) && !mp->hashes)
		mp->hashes = page_hashes_new();
	forget(&mp->sent, mp->hashes, &mp->unmapped);
	page_set_remove(&mp->use.ever, &mp->unmapped);
	for (size_t i = 0; i < mp->n_plan; i++) {
		const struct page_plan *plan = &mp->plan[i];

		add(&gone, &plan->drop);
		add(&went, &plan->go);
		if (mp->hashes)
			compare(m, mp, -1, mp->hashes, &plan->go, &written);
	}
	forget(&mp->sent, mp->hashes, &gone);
	page_set_merge(&mp->sent, &went);
	page_set_merge(&mp->use.now, mp->hashes ? &written : &went);
	uint64_t bytes = page_set_bytes(mp->hashes ? &written : &went);

	memory_plan_clear(mp);
	page_set_deinit(&went);
	page_set_deinit(&written);
	page_set_deinit(&gone);
	return bytes;
}

int memory_objects_note(struct memory *m, uint64_t *ret_bytes, struct error *e)
{
	int r = 0;

	*ret_bytes = 0;
	for (size_t i = 0; i < m->n_objects && r >= 0; i++) {
		struct memory_object *o = m->objects[i];
		struct page_set go = PAGE_SET_INIT, gone = PAGE_SET_INIT;

		r = memory_object_changes(m, o, false, &go, &gone, e);
		if (r > 0) {
			forget(&o->sent, o->hashes, &gone);
			page_set_merge(&o->sent, &go);
			struct page_set written = PAGE_SET_INIT;

			compare(m, NULL, o->fd, o->hashes, &go, &written);
			page_set_merge(&o->use.now, &written);
			*ret_bytes += page_set_bytes(&written);
			page_set_deinit(&written);
			page_set_clear(&o->dirty);
			page_set_clear(&o->unsure);
		}
		page_set_deinit(&go);
		page_set_deinit(&gone);
	}
	return MIN(r, 0);
}

/* --- intervals ------------------------------------------------------------------------------------- */

static void end_interval(struct page_use *u, bool baseline)
{
	if (!baseline)
		page_set_merge(&u->ever, &u->now);
	page_set_clear(&u->now);
}

void page_use_deinit(struct page_use *u)
{
	page_set_deinit(&u->now);
	page_set_deinit(&u->ever);
}

void memory_end_interval(struct memory *m, struct tree *t, bool baseline)
{
	for (size_t i = 0; i < t->n; i++)
		if (t->procs[i]->data)
			end_interval(&((struct memory_process *)t->procs[i]->data)->use, baseline);
	for (size_t i = 0; i < m->n_objects; i++)
		end_interval(&m->objects[i]->use, baseline);
}

/* Populated pages of what no backend follows: those that only a frozen pass can copy. */
static uint64_t untracked(const struct memory_process *mp)
{
	struct page_set private = PAGE_SET_INIT, rest = PAGE_SET_INIT, populated = PAGE_SET_INIT;
	uint64_t bytes = 0;

	for (size_t i = 0; i < mp->mm->n_vmas; i++) {
		const Ferry__Vma *v = mp->mm->vmas[i];

		if (!v->shared && !layout_is_special(v))
			page_set_add(&private, v->start, v->end);
	}
	if (mp->unseen_writes)
		page_set_merge(&rest, &private);
	else
		page_set_minus(&private, &mp->armed, &rest);
	for (size_t i = 0; i < rest.n; i++) {
		page_set_clear(&populated);
		if (pagemap_populated(mp->pagemap_fd, rest.r[i].start, rest.r[i].end, 1, &populated) == 0)
			bytes += page_set_bytes(&populated);
	}
	page_set_deinit(&private);
	page_set_deinit(&rest);
	page_set_deinit(&populated);
	return bytes;
}

void memory_sum_use(struct memory *m, struct tree *t, struct memory_use *ret)
{
	*ret = (struct memory_use){0};
	for (size_t i = 0; i < t->n; i++) {
		const struct memory_process *mp = t->procs[i]->data;

		if (!mp || !mp->mm)
			continue;
		ret->memory += page_set_bytes(&mp->sent);
		ret->now += page_set_bytes(&mp->use.now);
		ret->ever += page_set_bytes(&mp->use.ever);
		ret->untracked += untracked(mp);
		ret->vmas += mp->mm->n_vmas;
	}
	for (size_t i = 0; i < m->n_objects; i++) {
		ret->memory += page_set_bytes(&m->objects[i]->sent);
		ret->now += page_set_bytes(&m->objects[i]->use.now);
		ret->ever += page_set_bytes(&m->objects[i]->use.ever);
	}
}
