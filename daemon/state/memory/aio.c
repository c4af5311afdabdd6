/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Contexts of asynchronous I/O (io_setup): each is a ring that the kernel writes, mapped at the address that
 * is also its name.  Its mapping is none of the layout's (Vma.kind VMA_AIO): a placeholder lies there until
 * the context is made (aio_rebuild.c).
 *
 * Requests under way at the freeze go on without the program and write its memory, so they are waited for
 * before the last pages are read.  What has not ended after a second is an error, and the program goes on.
 *
 * A fork leaves a copy of the mapping in the child, where no call works with it.  Its content goes along.
 */
#include "state/memory/aio.h"

#include <errno.h>
#include <string.h>

#include "base/util.h"
#include "state/memory/memory.h"
#include "state/patience.h"
#include "state/task/message.h"

static bool has_rings(const struct memory_process *mp)
{
	for (size_t i = 0; mp && mp->mm && i < mp->mm->n_vmas; i++)
		if (mp->mm->vmas[i]->kind == FERRY__VMA_KIND__VMA_AIO)
			return true;
	return false;
}

static int look(const struct memory_process *mp, struct aio_context **ret, size_t *ret_n, struct error *e)
{
	int r = aio_look(mp->mem_fd, ret, ret_n, e);

	return r < 0 ? error_prefix(e, "pid %d", mp->pid) : 0;
}

/* --- waiting -------------------------------------------------------------------------------------------- */

static int wait_for(const struct memory_process *mp, struct patience patience, struct error *e)
{
	for (;;) {
		cleanup_free struct aio_context *v = NULL;
		const struct aio_context *busy = NULL;
		size_t n = 0;
		int r = look(mp, &v, &n, e);

		if (r < 0)
			return r;
		for (size_t i = 0; i < n && !busy; i++)
			if (v[i].in_flight)
				busy = &v[i];
		if (!busy)
			return 0;
		if (patience_ends(&patience))
			return error_say(
				e, EAGAIN,
				"pid %d: %lld requests of its context of asynchronous I/O at 0x%llx do "
				"not end: it can be moved when none is under way",
				mp->pid, (long long)busy->in_flight, (unsigned long long)busy->addr);
	}
}

int aio_wait_idle(struct capture *c, struct error *e)
{
	const struct patience patience = patience_begin();
	int r = 0;

	for (size_t i = 0; i < c->tree->n && r >= 0; i++)
		if (has_rings(c->tree->procs[i]->data))
			r = wait_for(c->tree->procs[i]->data, patience, e);
	return r;
}

bool aio_is_busy(const struct memory_process *mp)
{
	cleanup_free struct aio_context *v = NULL;
	struct error ignore = ERROR_INIT;
	size_t n = 0;

	if (!has_rings(mp))
		return false;
	if (aio_look(mp->mem_fd, &v, &n, &ignore) < 0)
		return true;
	for (size_t i = 0; i < n; i++)
		if (v[i].in_flight)
			return true;
	return false;
}

/* --- capture -------------------------------------------------------------------------------------------- */

static int read_memory(const struct memory_process *mp, uint64_t addr, void *to, size_t size, struct error *e)
{
	int r = pread_full(mp->mem_fd, to, size, (off_t)addr);

	return r < 0 ? error_set(e, -r, "pid %d: reading the ring of asynchronous I/O at 0x%llx", mp->pid,
				 (unsigned long long)addr)
		     : 0;
}

static int take_unread(const struct memory_process *mp, Ferry__AioContext *m, struct error *e)
{
	uint32_t n = (m->tail + m->events - m->head) % m->events;
	uint32_t first = MIN(n, m->events - m->head);
	uint64_t events = m->addr + sizeof(struct aio_ring);
	struct io_event *v = xcalloc(n + 1, sizeof(*v));

	m->unread.data = (uint8_t *)v;
	m->unread.len = n * sizeof(*v);
	int r = read_memory(mp, events + m->head * sizeof(*v), v, first * sizeof(*v), e);

	return r < 0 || first == n ? r : read_memory(mp, events, v + first, (n - first) * sizeof(*v), e);
}

static int take_context(const struct memory_process *mp, const struct aio_context *x, const Ferry__Vma *v,
			bool warm, Ferry__Aio *all, struct error *e)
{
	struct aio_ring ring;
	Ferry__AioContext *m = MESSAGE_NEW(Ferry__AioContext, ferry__aio_context);

	all->contexts[all->n_contexts++] = m;
	m->addr = x->addr;
	m->length = x->length;
	m->events = (uint32_t)x->nr;
	m->max_requests = (uint32_t)x->max_requests;
	if (v->end - v->start != x->length)
		return error_say(e, ENOTSUP,
				 "pid %d: of the ring of asynchronous I/O at 0x%llx a part was unmapped or "
				 "protected in another way, which cannot be made again",
				 mp->pid, (unsigned long long)x->addr);
	if (warm)
		return 0;
	if (x->in_flight)
		return error_say(
			e, EAGAIN,
			"pid %d: %lld requests of its context of asynchronous I/O at 0x%llx are under "
			"way",
			mp->pid, (long long)x->in_flight, (unsigned long long)x->addr);
	int r = read_memory(mp, x->addr, &ring, sizeof(ring), e);

	if (r < 0)
		return r;
	if (ring.magic != AIO_MAGIC || ring.nr != x->nr || ring.head >= ring.nr || x->tail >= ring.nr)
		return error_say(
			e, ENOTSUP,
			"pid %d: what the ring of asynchronous I/O at 0x%llx says of itself (%u of %u "
			"events, the next one %u) is not what the kernel knows (%llu events)",
			mp->pid, (unsigned long long)x->addr, ring.tail, ring.nr, ring.head,
			(unsigned long long)x->nr);
	m->head = ring.head;
	m->tail = (uint32_t)x->tail;
	return take_unread(mp, m, e);
}

static int take_copy(const struct memory_process *mp, const Ferry__Vma *v, bool warm, Ferry__Aio *all,
		     struct error *e)
{
	Ferry__AioCopy *m = MESSAGE_NEW(Ferry__AioCopy, ferry__aio_copy);

	all->copies[all->n_copies++] = m;
	m->addr = v->start;
	m->length = v->end - v->start;
	if (warm)
		return 0;
	m->content.data = xmalloc(m->length);
	m->content.len = m->length;
	return read_memory(mp, v->start, m->content.data, m->length, e);
}

static int take_all(const struct memory_process *mp, bool warm, Ferry__Aio *all, struct error *e)
{
	cleanup_free struct aio_context *x = NULL;
	const Ferry__Mm *mm = mp->mm;
	size_t n = 0;
	int r = look(mp, &x, &n, e);

	all->pid = mp->pid;
	all->contexts = xcalloc(mm->n_vmas + 1, sizeof(Ferry__AioContext *));
	all->copies = xcalloc(mm->n_vmas + 1, sizeof(Ferry__AioCopy *));
	for (size_t i = 0; i < mm->n_vmas && r >= 0; i++) {
		const struct aio_context *own = NULL;

		if (mm->vmas[i]->kind != FERRY__VMA_KIND__VMA_AIO)
			continue;
		for (size_t k = 0; k < n && !own; k++)
			if (x[k].addr == mm->vmas[i]->start)
				own = &x[k];
		r = own ? take_context(mp, own, mm->vmas[i], warm, all, e)
			: take_copy(mp, mm->vmas[i], warm, all, e);
	}
	return r;
}

static int take(struct capture *c, struct process *p, bool warm, struct error *e)
{
	const struct memory_process *mp = p->data;

	if (!has_rings(mp))
		return 0;
	Ferry__Aio *m = MESSAGE_NEW(Ferry__Aio, ferry__aio);
	int r = take_all(mp, warm, m, e);

	if (r < 0)
		ferry__aio__free_unpacked(m, NULL);
	else
		snapshot_put(c->snapshot, FERRY__RECORD_TYPE__RECORD_AIO, p->pid, 0, &m->base);
	return r;
}

static int aio_take_warm(struct capture *c, struct process *p, struct thread *t, struct error *e)
{
	(void)t;
	return take(c, p, true, e);
}

static int aio_take(struct capture *c, struct process *p, struct thread *t, struct batch *b, void *state,
		    struct error *e)
{
	(void)t, (void)b, (void)state;
	return take(c, p, false, e);
}

const struct state_kind kind_aio = {
	.name = "memory/aio",
	.type = FERRY__RECORD_TYPE__RECORD_AIO,
	.scope = KIND_PROCESS,
	.descriptor = &ferry__aio__descriptor,
	.take_warm = aio_take_warm,
	.take = aio_take,
	.check = aio_check,
	.prepare = aio_prepare,
};
