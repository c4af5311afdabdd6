/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the userfaultfds of a running tree tell: faults, which are kept until the pager looks at them, and
 * events, which go into the state file as they are read, and into the books when it is known what was before
 * what (docs/post-copy.md, "The order of events").
 */
#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/util.h"
#include "engine/pager.h"
#include "engine/pager_file.h"

#define LOWEST  0x10000ull        /* vm.mmap_min_addr, as a rule; a power of two */
#define HIGHEST 0x7ffffffff000ull /* behind the last page of a program */
#define SPINS   20                /* looks before it is slept between two */

enum pager_placed pager_what_failed(int code)
{
	switch (code) {
	case EEXIST:
		return PAGER_THERE;
	case ESRCH:
		return PAGER_ENDED;
	case EAGAIN:
	case ENOMEM: /* it may come: the threads wait */
		return PAGER_BEHIND;
	default: /* ENOENT, EFAULT, EINVAL */
		return PAGER_GONE;
	}
}

/* Without an effect: at the highest address, from where nothing can be read. */
enum pager_placed pager_look(int uffd)
{
	struct uffdio_copy c = {
		.dst = HIGHEST - PAGE_SIZE_BYTES, .src = PAGE_SIZE_BYTES, .len = PAGE_SIZE_BYTES};

	return ioctl(uffd, UFFDIO_COPY, &c) == 0 ? PAGER_THERE : pager_what_failed(errno);
}

void pager_wake(int uffd, uint64_t start, uint64_t length)
{
	struct uffdio_range range = {start, length};

	ioctl(uffd, UFFDIO_WAKE, &range);
}

/* Whatever there is in a memory, whether the books know it or not. */
void pager_wake_all(int uffd)
{
	for (uint64_t start = LOWEST; start < HIGHEST; start *= 2) {
		struct uffdio_range range = {start, HIGHEST - start};

		if (ioctl(uffd, UFFDIO_WAKE, &range) == 0 || errno != EINVAL)
			break;
	}
}

static void note_fault(struct pager *p, size_t space, const struct uffd_msg *msg)
{
	if (p->n_faults == p->cap_faults) {
		p->cap_faults = p->cap_faults * 2 + 64;
		p->faults = xrealloc(p->faults, p->cap_faults * sizeof(*p->faults));
	}
	p->faults[p->n_faults++] =
		(struct pager_read){.space = space,
				    .addr = msg->arg.pagefault.address & ~(PAGE_SIZE_BYTES - 1),
				    .since = now_ns(),
				    .minor = msg->arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_MINOR};
}

void pager_add_pending(struct pager *p, const struct pager_event *ev)
{
	p->pending = xrealloc(p->pending, (p->n_pending + 1) * sizeof(*p->pending));
	p->pending[p->n_pending++] = *ev;
}

/* One message, right into the file of state. 1: an event, 2: a fault, 0: there is none. */
static int read_one(struct pager *p, size_t space, struct error *e)
{
	struct pager_header *h = &p->file->h;
	struct pager_event *next = &pager_file_log(p->file)[h->n_log];

	next->msg.event = 0;
	next->space = (uint32_t)space;
	next->applied = 0;
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
	ssize_t n = read(p->missing.spaces[space].fd, &next->msg, sizeof(next->msg));

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return 0;
	if (n != sizeof(next->msg))
		return error_set(e, n < 0 ? errno : EIO, "read a userfaultfd");
	if (next->msg.event == UFFD_EVENT_PAGEFAULT) {
		note_fault(p, space, &next->msg);
		next->msg.event = 0;
		return 2;
	}
	h->n_log++;
	p->n_events++;
	pager_add_pending(p, next);
	return 1;
}

/* Takes the events of one memory out of those that wait. */
static struct uffd_msg *take_pending(struct pager *p, size_t space, size_t *ret)
{
	struct uffd_msg *msgs = xcalloc(p->n_pending + 1, sizeof(*msgs));
	size_t kept = 0;

	*ret = 0;
	for (size_t i = 0; i < p->n_pending; i++)
		if (p->pending[i].space == space)
			msgs[(*ret)++] = p->pending[i].msg;
		else
			p->pending[kept++] = p->pending[i];
	p->n_pending = kept;
	return msgs;
}

static void put_back(struct pager *p, size_t space, const struct uffd_msg *msgs, size_t n)
{
	for (size_t i = 0; i < n; i++)
		pager_add_pending(p, &(struct pager_event){.space = (uint32_t)space, .msg = msgs[i]});
}

void pager_take_for_settled(struct pager *p, size_t space)
{
	size_t n;
	cleanup_free struct uffd_msg *msgs = take_pending(p, space, &n);
	bool ignored;

	if (n)
		(void)pager_apply(p, space, msgs, &n, PAGER_REPLAY, &ignored);
}

/* The books have what one memory told: so does the file. */
static int note_applied(struct pager *p, size_t space, bool anew, struct error *e)
{
	cleanup_free char *path = xstrdup(p->path);
	struct pager_header *h = &p->file->h;
	int r = anew || h->n_log >= PAGER_LOG / 2 ? pager_write(p, path, e) : 1;

	h = &p->file->h;
	if (r == 0 || (r < 0 && h->n_log + 2 >= PAGER_LOG))
		return r;
	/* Or a full disk: what was read is written down where there still is room. */
	error_clear(e);
	for (size_t i = 0; i < p->n_pending; i++)
		if (p->pending[i].space == space)
			return 0; /* a successor begins with all of them */
	pager_file_log(p->file)[h->n_log] =
		(struct pager_event){.space = (uint32_t)space, .applied = 1, .msg.event = 0};
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
	h->n_log++;
	return 0;
}

/* 1: done; 0: more has happened meanwhile. */
static int apply_pending(struct pager *p, size_t space, enum pager_known known, bool anew, struct error *e)
{
	size_t n;
	cleanup_free struct uffd_msg *msgs = take_pending(p, space, &n);
	bool looked;
	int r = pager_apply(p, space, msgs, &n, known, &looked);

	put_back(p, space, msgs, n);
	if (r < 0)
		return 0;
	r = note_applied(p, space, looked || known == PAGER_SOME || anew, e);
	return r < 0 ? r : 1;
}

/* All that one memory has to tell.  Threads do one thing after the other, but what several did is only
 * understood when it is all known: when none of them is about to tell something, which the kernel says.  Nor
 * can anything be placed before.  There is room for it in the file: each of its events is of another thread,
 * but for those that make another one in the meantime. */
static int read_space(struct pager *p, size_t space, struct error *e)
{
	bool anew = p->n_pending > 0; /* from the one before: the order of several spaces is not kept */

	for (int tries = 0;; tries++) {
		size_t n = 0;
		int r;

		while ((r = read_one(p, space, e)) > 0)
			if (p->file->h.n_log + 2 >= PAGER_LOG)
				break;
		for (size_t i = 0; i < p->n_pending; i++)
			n += p->pending[i].space == space;
		if (r < 0 || !n)
			return r;
		enum pager_placed x = pager_look(p->missing.spaces[space].fd);
		bool many = n >= PAGER_LOG / 4 || p->file->h.n_log + 2 >= PAGER_LOG;

		if (x != PAGER_BEHIND || many) {
			enum pager_known known = x == PAGER_BEHIND  ? PAGER_SOME
						 : x == PAGER_ENDED ? PAGER_REPLAY
								    : PAGER_SETTLED;

			r = apply_pending(p, space, known, anew, e);
			if (r < 0 || (r > 0 && known != PAGER_SOME))
				return MIN(r, 0);
		}
		r = job_check_abort(e);
		if (r < 0)
			return r;
		if (tries > SPINS)
			usleep(50); /* the threads that told have to run a little */
	}
}

int pager_read(struct pager *p, struct error *e)
{
	int r = 0;

	/* Spaces may be added meanwhile. */
	for (size_t i = 0; i < p->missing.n_spaces && r >= 0; i++)
		if (!p->missing.spaces[i].ended && p->missing.spaces[i].object == MISSING_PROCESS)
			r = read_space(p, i, e);
	return r;
}
