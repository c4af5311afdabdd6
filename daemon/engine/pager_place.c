/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pages are placed in a running tree, and threads that wait for them are answered.
 *
 * A fault may be read before the event that came before it (the kernel gives faults first), and the books can
 * be behind what the memory is by then.  They never do harm: while an event of a memory is unread, nothing
 * can be placed in it (EAGAIN), so everything is decided again after all events have been read.  A thread
 * that waits at an address that was moved or unmapped meanwhile is woken; it faults again, or gets its
 * signal.
 */
#include <errno.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/util.h"
#include "engine/pager.h"
#include "engine/pager_file.h"

/* @data NULL: zeros. *ret_done: bytes. */
static enum pager_placed try_place(int uffd, uint64_t addr, const void *data, uint64_t length,
				   uint64_t *ret_done)
{
	int64_t done;
	int r;

	if (data) {
		struct uffdio_copy c = {.dst = addr, .src = (uintptr_t)data, .len = length};

		r = ioctl(uffd, UFFDIO_COPY, &c);
		done = c.copy;
	} else {
		struct uffdio_zeropage z = {.range = {addr, length}};

		r = ioctl(uffd, UFFDIO_ZEROPAGE, &z);
		done = z.zeropage;
	}
	*ret_done = r == 0 ? length : done > 0 ? (uint64_t)done : 0;
	if (*ret_done)
		return PAGER_PLACED;
	return pager_what_failed(errno);
}

/* Pages of a source that lie together in @space too, from @mark on. */
size_t pager_together(const struct missing *m, size_t space, uint64_t mark, size_t n, uint64_t *ret_addr)
{
	uint64_t addr;
	size_t k = 0;

	if (!missing_where(m, space, mark, ret_addr))
		return 0;
	for (k = 1;
	     k < n && missing_where(m, space, mark + k, &addr) && addr == *ret_addr + k * PAGE_SIZE_BYTES;)
		k++;
	return k;
}

int pager_behind(struct pager *p, struct error *e)
{
	int r = pager_read(p, e);

	if (r >= 0)
		r = job_check_abort(e);
	if (r >= 0)
		usleep(50); /* the thread that made the event has to run a little */
	return r;
}

static int place_in(struct pager *p, size_t space, uint64_t mark, size_t n, const char *data, struct error *e)
{
	size_t most = n;
	bool sure = false;

	for (size_t i = 0; i < n && !p->missing.spaces[space].ended;) {
		const void *from = data ? data + i * PAGE_SIZE_BYTES : NULL;
		uint64_t addr, done;
		size_t k = pager_together(&p->missing, space, mark + i, MIN(n - i, most), &addr);
		int r = 0;

		if (!k) {
			i++;
			continue;
		}
		enum pager_placed x =
			try_place(p->missing.spaces[space].fd, addr, from, k * PAGE_SIZE_BYTES, &done);

		/* One call is for one mapping: pages side by side may be in two. */
		if (x == PAGER_GONE && k > 1) {
			most = k / 2;
			continue;
		}
		/* A mapping may have been moved while the call began. Then the next one is told that it is
		 * behind, until that event was read: nothing is there only if twice in a row it was not, with
		 * no event in between. */
		if (x == PAGER_GONE && !sure) {
			uint64_t seen = p->n_events;

			r = pager_read(p, e);
			if (r < 0)
				return r;
			sure = p->n_events == seen;
			continue;
		}
		sure = false;
		most = n;
		if (x == PAGER_PLACED) {
			i += done / PAGE_SIZE_BYTES;
		} else if (x == PAGER_BEHIND) {
			r = pager_behind(p, e);
		} else if (x == PAGER_ENDED) {
			pager_end_space(p, space);
		} else {
			pager_wake(p->missing.spaces[space].fd, addr, PAGE_SIZE_BYTES);
			i++;
		}
		if (r < 0)
			return r;
	}
	return 0;
}

static int answered(struct pager *p, size_t source, uint64_t mark, void (*latency)(void *ctx, uint64_t ns),
		    void *ctx, struct error *e)
{
	int r = 0;

	for (size_t i = p->n_waiting; i-- > 0 && r >= 0;) {
		const struct pager_fault f = p->waiting[i];

		if (f.mark != mark || f.source != source)
			continue;
		p->waiting[i] = p->waiting[--p->n_waiting];
		r = pager_answer_shared(p, &f, e);
		if (latency)
			latency(ctx, now_ns() - f.since);
	}
	return r;
}

/* The first spaces are those of the sources, in the same order. */
static bool was_huge(const struct pager *p, size_t source, uint64_t mark, size_t n)
{
	const struct missing_space *x = &p->missing.spaces[source];
	uint64_t at;

	for (size_t i = 0; x->huge.n && i < n; i++)
		if (missing_where(&p->missing, source, mark + i, &at) &&
		    page_set_overlaps(&x->huge, at, at + PAGE_SIZE_BYTES))
			return true;
	return false;
}

int pager_place(struct pager *p, size_t source, uint64_t mark, size_t n, const void *data,
		void (*latency)(void *ctx, uint64_t ns), void *ctx, struct error *e)
{
	cleanup_free char *zeros = NULL;
	int r = 0;

	/* The page of zeros that all share cannot be part of a huge one. */
	if (!data && was_huge(p, source, mark, n))
		data = zeros = xcalloc(n, PAGE_SIZE_BYTES);
	p->arrived += n;
	for (size_t i = 0; i < n; i++)
		p->again += !missing_bit(p->missing.sources[source].wanted, mark + i);
	/* A fork meanwhile adds a space that lacks what is placed after it: the list grows under our hands.
	 */
	for (size_t i = 0; i < p->missing.n_spaces && r >= 0; i++)
		if (p->missing.spaces[i].source == source)
			r = p->missing.spaces[i].object == MISSING_PROCESS
				    ? place_in(p, i, mark, n, data, e)
				    : pager_place_shared(p, i, mark, n, data, e);
	for (size_t i = 0; i < n && r >= 0; i++) {
		/* Not before: the file may have been written anew. */
		pager_mark_placed(p, source, mark + i);
		missing_arrived(&p->missing, source, mark + i);
		r = answered(p, source, mark + i, latency, ctx, e);
	}
	return r;
}

/* --- faults ---------------------------------------------------------------------------------------- */

void pager_note_waiting(struct pager *p, const struct pager_fault *f)
{
	for (size_t i = 0; i < p->n_waiting; i++)
		if (p->waiting[i].space == f->space && p->waiting[i].addr == f->addr &&
		    p->waiting[i].source == f->source && p->waiting[i].mark == f->mark)
			return;
	if (p->n_waiting == p->cap_waiting) {
		p->cap_waiting = p->cap_waiting * 2 + 64;
		p->waiting = xrealloc(p->waiting, p->cap_waiting * sizeof(*p->waiting));
	}
	p->waiting[p->n_waiting++] = *f;
	p->n_served++;
}

/* A page that nobody has: it was never touched, or has been given back. */
int pager_give_zeros(struct pager *p, size_t space, uint64_t addr, bool *ret_again, struct error *e)
{
	uint64_t done;
	int fd = p->missing.spaces[space].fd;

	*ret_again = false;
	switch (try_place(fd, addr, NULL, PAGE_SIZE_BYTES, &done)) {
	case PAGER_PLACED:
		p->n_zeros++;
		break;
	case PAGER_BEHIND: /* look again: perhaps it is missing after all, as it was moved there */
		*ret_again = true;
		return pager_behind(p, e);
	case PAGER_ENDED:
		pager_end_space(p, space);
		break;
	case PAGER_THERE:
	case PAGER_GONE:
		pager_wake(fd, addr, PAGE_SIZE_BYTES);
		break;
	}
	return 0;
}

int pager_faults(struct pager *p, int (*ask)(void *ctx, size_t source, uint64_t mark, struct error *e),
		 void *ctx, struct error *e)
{
	int r = 0;

	for (size_t i = 0; i < p->n_faults && r >= 0; i++) {
		bool again = true;

		while (again && r >= 0) {
			const struct pager_read f = p->faults[i]; /* the array grows while events are read */
			uint64_t mark, object, offset;

			again = false;
			if (p->missing.spaces[f.space].ended)
				break;
			int known = pager_view_at(p, f.space, f.addr, &object, &offset);

			if (known > 0) {
				r = pager_shared_fault(p, &f, object, offset, ask, ctx, &again, e);
				continue;
			}
			bool here = !known && missing_find(&p->missing, f.space, f.addr, &mark);

			if (!known && !here)
				known = f.minor ? 1 : pager_may_be_shared(p, f.space, f.addr);
			if (known < 0) {
				r = pager_behind(p, e);
				again = true;
				continue;
			}
			/* Shared memory that the books do not know: safe when all has come. */
			if (known)
				break;
			if (!here) {
				r = pager_give_zeros(p, f.space, f.addr, &again, e);
				continue;
			}
			size_t source = p->missing.spaces[f.space].source;

			pager_note_waiting(p, &(struct pager_fault){f.space, source, f.addr, mark, f.since});
			if (missing_urge(&p->missing, source, mark))
				r = ask(ctx, source, mark, e);
		}
	}
	if (r >= 0)
		p->n_faults = 0;
	return r;
}

void pager_look_for_ended(struct pager *p)
{
	bool alive = false;

	for (size_t i = 0; i < p->missing.n_spaces; i++) {
		if (p->missing.spaces[i].object != MISSING_PROCESS)
			continue;
		if (!p->missing.spaces[i].ended && pager_look(p->missing.spaces[i].fd) == PAGER_ENDED)
			pager_end_space(p, i);
		alive |= !p->missing.spaces[i].ended;
	}
	/* Nobody is left who could want what is shared. */
	for (size_t i = 0; i < p->missing.n_spaces && !alive; i++)
		pager_end_space(p, i);
}
