/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Post-copy: shared memory that stays behind (docs/post-copy.md, "Shared memory").
 *
 * Only what nothing but mappings can reach: shared anonymous memory, and memfds of which no descriptor is
 * left.  Whether there is one, perhaps on its way in a socket, is known for sure only when all state has been
 * captured, which comes after the pages: so what was left of such an object goes then, all the same.
 *
 * What stays is listed under an address of a process that maps it, so that it can be asked for and read like
 * private memory. What nobody maps goes.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "base/util.h"
#include "state/memory/memory.h"

#define CHUNK (256u << 10)
#define NEVER                                                                                            \
	(FERRY__VMA_FLAG__VMA_LOCKED | FERRY__VMA_FLAG__VMA_LOCKONFAULT | FERRY__VMA_FLAG__VMA_HUGETLB | \
	 FERRY__VMA_FLAG__VMA_DROPPABLE | VMA_UFFD_ANY)

bool memory_shared_may_stay(const Ferry__Vma *v)
{
	/* The kernel takes no mapping that can never be written. */
	return v->kind == FERRY__VMA_KIND__VMA_OBJECT && v->shared && v->file_writable && !(v->flags & NEVER);
}

static const struct memory_process *followed(const struct memory *m, size_t i)
{
	const struct process *p = m->tree->procs[i];

	return p->state == PROCESS_ZOMBIE ? NULL : p->data;
}

bool memory_object_may_stay(const struct memory *m, const struct memory_object *o)
{
	if (!m->may_leave || !m->tree || o->has_fd || o->huge_page_size ||
	    (o->seals & (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE)) ||
	    (o->kind != FERRY__OBJECT_KIND__OBJECT_SHMEM && o->kind != FERRY__OBJECT_KIND__OBJECT_MEMFD))
		return false;
	for (size_t i = 0; i < m->tree->n; i++) {
		const struct memory_process *mp = followed(m, i);

		for (size_t k = 0; mp && mp->mm && k < mp->mm->n_vmas; k++)
			if (mp->mm->vmas[k]->object == o->id && !memory_shared_may_stay(mp->mm->vmas[k]))
				return false;
	}
	return true;
}

/* Of @set what is not what was sent last. */
static int find_changed(struct memory *m, struct memory_object *o, const struct page_set *set,
			struct page_set *ret, struct error *e)
{
	for (size_t i = 0; i < set->n; i++)
		for (uint64_t at = set->r[i].start; at < set->r[i].end; at += CHUNK) {
			size_t want = MIN(set->r[i].end - at, (uint64_t)CHUNK);
			ssize_t n = pread(o->fd, m->buffer, want, (off_t)at);

			if (n < 0)
				return error_set(e, errno, "read shared memory object %s at 0x%llx", o->name,
						 (unsigned long long)at);
			memset(m->buffer + n, 0, want - n);
			for (uint64_t k = 0; k < want; k += PAGE_SIZE_BYTES)
				if (!page_hashes_update(o->hashes, at + k, m->buffer + k))
					page_set_add(ret, at + k, at + k + PAGE_SIZE_BYTES);
		}
	return 0;
}

static void forget_hashes(struct memory_object *o, const struct page_set *set)
{
	for (size_t i = 0; i < set->n; i++)
		page_hashes_forget(o->hashes, set->r[i].start, set->r[i].end);
}

/* Each page of @set to one mapping; those that have none are taken out of it. */
static void assign(struct memory *m, const struct memory_object *o, struct page_set *set)
{
	struct page_set rest = PAGE_SET_INIT;

	page_set_merge(&rest, set);
	for (size_t i = 0; i < m->tree->n && rest.n; i++) {
		struct memory_process *mp = (struct memory_process *)followed(m, i);

		for (size_t k = 0; mp && mp->mm && k < mp->mm->n_vmas && rest.n; k++) {
			const Ferry__Vma *v = mp->mm->vmas[k];
			struct page_set here = PAGE_SET_INIT, part = PAGE_SET_INIT;

			if (v->object != o->id)
				continue;
			page_set_add(&here, v->offset, v->offset + (v->end - v->start));
			page_set_and(&rest, &here, &part);
			for (size_t j = 0; j < part.n; j++)
				page_set_add(&mp->left_shared, part.r[j].start - v->offset + v->start,
					     part.r[j].end - v->offset + v->start);
			page_set_remove(&rest, &part);
			page_set_deinit(&here);
			page_set_deinit(&part);
		}
	}
	page_set_remove(set, &rest);
	page_set_deinit(&rest);
}

int memory_object_leave(struct memory *m, struct memory_object *o, struct page_set *go,
			const struct page_set *again, struct error *e)
{
	struct page_set sent = PAGE_SET_INIT, doubt = PAGE_SET_INIT, changed = PAGE_SET_INIT,
			stay = PAGE_SET_INIT;

	page_set_and(&o->unsure, &o->sent, &sent);
	page_set_merge(&sent, again);
	page_set_and(go, &sent, &doubt);
	int r = find_changed(m, o, &doubt, &changed, e);

	if (r >= 0) {
		forget_hashes(o, &changed);
		page_set_remove(go, &doubt);
		page_set_merge(go, &changed);
		page_set_minus(go, &o->keep, &stay);
		assign(m, o, &stay);
		page_set_remove(go, &stay);
		page_set_remove(&o->sent, &stay);
		forget_hashes(o, &stay);
		page_set_merge(&o->left, &stay);
	}
	page_set_deinit(&sent);
	page_set_deinit(&doubt);
	page_set_deinit(&changed);
	page_set_deinit(&stay);
	return r;
}

static void take_back(struct memory *m, const struct memory_object *o)
{
	for (size_t i = 0; i < m->tree->n; i++) {
		struct memory_process *mp = (struct memory_process *)followed(m, i);

		for (size_t k = 0; mp && mp->mm && k < mp->mm->n_vmas; k++)
			if (mp->mm->vmas[k]->object == o->id)
				page_set_remove_range(&mp->left_shared, mp->mm->vmas[k]->start,
						      mp->mm->vmas[k]->end);
	}
}

int memory_objects_unleave(struct memory *m, struct stream_out *out, struct round_stats *st, struct error *e)
{
	int r = 0;

	for (size_t i = 0; i < m->n_objects && r >= 0; i++) {
		struct memory_object *o = m->objects[i];

		if (!o->left.n || !o->has_fd)
			continue;
		take_back(m, o);
		r = memory_object_put(m, o, out, &o->left, st, e);
		page_set_merge(&o->sent, &o->left);
		page_set_clear(&o->left);
	}
	return r;
}
