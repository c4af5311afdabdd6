/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Userfaultfds of a running tree: what they tell is read, pages are placed.
 *
 * A fault may be read before the event that came before it (the kernel gives faults first), and the books can
 * be behind what the memory is by then.  They never do harm: while an event of a memory is unread, nothing
 * can be placed in it (EAGAIN), so everything is decided again after all events have been read.  A thread
 * that waits at an address that was moved or unmapped meanwhile is woken; it faults again, or gets its
 * signal.
 */
#include "engine/pager.h"

#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/util.h"
#include "engine/pager_file.h"
#include "procfs/pagemap.h"
#include "state/memory/huge.h"

#define LOWEST  0x10000ull        /* vm.mmap_min_addr, as a rule; a power of two */
#define HIGHEST 0x7ffffffff000ull /* behind the last page of a program */

struct pager *pager_new(void)
{
	struct pager *p = xcalloc(1, sizeof(*p));

	p->own_uffd = -1;
	return p;
}

void pager_free(struct pager *p)
{
	if (!p)
		return;
	/* The holder's table of descriptors is ours: what we close it does not keep. */
	for (size_t i = 0; i < p->missing.n_spaces && !(p->holder && p->holder_is_child); i++)
		if (p->missing.spaces[i].fd >= 0)
			close(p->missing.spaces[i].fd);
	pager_objects_free(p);
	missing_deinit(&p->missing);
	if (p->file)
		munmap(p->file, p->size);
	free(p->path);
	free(p->waiting);
	free(p->faults);
	free(p);
}

void pager_add(struct pager *p, pid_t pid, const struct page_set *pages, const struct page_set *registered,
	       int uffd)
{
	pager_add_mixed(p, pid, pages, pages, registered, uffd);
}

/* What of the pages of @s is in @part: ranges, their addresses less @shift. */
static size_t ranges_in(const struct missing_source *s, const struct page_set *part, uint64_t shift,
			struct missing_range **ret, uint64_t **ret_bits)
{
	struct page_set both = PAGE_SET_INIT;
	size_t k = 0;

	page_set_and(&s->base, part, &both);
	*ret = xcalloc(both.n + 1, sizeof(**ret));
	*ret_bits = xcalloc(MISSING_WORDS(s->n) + 1, sizeof(**ret_bits));
	for (size_t i = 0; i < both.n; i++) {
		uint64_t start = both.r[i].start, end = both.r[i].end;

		while (s->base.r[k].end <= start)
			k++;
		uint64_t mark = s->first[k] + (start - s->base.r[k].start) / PAGE_SIZE_BYTES;

		(*ret)[i] = (struct missing_range){start - shift, end - shift, mark};
		for (; start < end; start += PAGE_SIZE_BYTES, mark++)
			(*ret_bits)[mark / 64] |= 1ull << (mark % 64);
	}
	size_t n = both.n;

	page_set_deinit(&both);
	return n;
}

void pager_add_mixed(struct pager *p, pid_t pid, const struct page_set *pages, const struct page_set *own,
		     const struct page_set *registered, int uffd)
{
	size_t source = missing_add_source(&p->missing, pid, pages);
	cleanup_free struct missing_range *r = NULL;
	cleanup_free uint64_t *bits = NULL;
	size_t n = ranges_in(&p->missing.sources[source], own, 0, &r, &bits);

	missing_add_space_as(&p->missing, source, uffd, r, n, bits, registered);
	p->total += p->missing.sources[source].n;
}

size_t pager_add_object(struct pager *p, int fd, uint64_t size)
{
	p->objects = xrealloc(p->objects, (p->n_objects + 1) * sizeof(*p->objects));
	p->objects[p->n_objects] = (struct pager_object){.fd = fd, .size = size};
	return p->n_objects++;
}

void pager_add_shared(struct pager *p, size_t source, size_t object, uint64_t start, uint64_t end,
		      uint64_t offset)
{
	struct page_range range = {start, end};
	const struct page_set part = {&range, 1, 1};
	cleanup_free struct missing_range *r = NULL;
	cleanup_free uint64_t *bits = NULL;
	size_t n = ranges_in(&p->missing.sources[source], &part, start - offset, &r, &bits);

	if (n)
		missing_add_object(&p->missing, source, object, r, n, bits);
}

void pager_set_huge(struct pager *p, const uint64_t *pairs, size_t n)
{
	struct page_set huge = PAGE_SET_INIT;

	for (size_t i = 0; i + 1 < n; i += 2)
		page_set_add(&huge, pairs[i], pairs[i + 1]);
	missing_set_huge(&p->missing, p->missing.n_spaces - 1, &huge);
	page_set_deinit(&huge);
}

/* The next one of @x from @from on: its address, or 0. */
static uint64_t next_huge(const struct missing_space *x, uint64_t from)
{
	for (size_t i = 0; !x->ended && i < x->huge.n; i++)
		if (x->huge.r[i].end > from)
			return MAX(x->huge.r[i].start, from);
	return 0;
}

/* Pages came one by one.  As long as the kernel works on one, threads of that memory wait for it, and faults
 * for us: so there is one at a time.  Who takes over begins anew, which costs little where they are huge. */
bool pager_make_huge(struct pager *p)
{
	for (; p->repaired.space < p->missing.n_sources; p->repaired.space++, p->repaired.done = 0) {
		uint64_t at = next_huge(&p->missing.spaces[p->repaired.space], p->repaired.done);
		pid_t pid = p->missing.sources[p->repaired.space].pid;

		if (!at)
			continue;
		struct page_range one = {at, at + HUGE_PAGE_BYTES};
		cleanup_close int pidfd = sys_pidfd_open(pid, 0), pagemap = pagemap_open(pid);
		const struct memory_process mp = {.pid = pid, .pagemap_fd = pagemap, .huge = {&one, 1, 1}};

		if (pidfd >= 0 && pagemap >= 0)
			huge_repair(&mp, pidfd);
		p->repaired.done = one.end;
		return true;
	}
	return false;
}

void pager_end_space(struct pager *p, size_t space)
{
	struct missing_space *x = &p->missing.spaces[space];

	if (x->ended)
		return;
	missing_end(&p->missing, space);
	if (x->object != MISSING_PROCESS)
		return;
	/* First: that number may be another one's soon. */
	if (p->file)
		pager_file_ended(p->file, space);
	close(TAKE_FD(x->fd));
}

void pager_finish(struct pager *p)
{
	if (p->file)
		p->file->h.finished = 1;
	for (size_t i = 0; i < p->missing.n_spaces; i++)
		pager_end_space(p, i);
	pager_end_holder(p);
}

/* --- what they tell -------------------------------------------------------------------------------- */

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

/* One message, right into the file of state. 1: an event, 2: a fault, 0: there is none. */
static int read_one(struct pager *p, size_t space, uint32_t batch, struct error *e)
{
	struct pager_header *h = &p->file->h;
	struct pager_event *next = &pager_file_log(p->file)[h->n_log];

	next->msg.event = 0;
	next->space = (uint32_t)space;
	next->batch = batch;
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
	return 1;
}

/* All that one memory has to tell. There is room for it in the file: each of its events is of another thread,
 * but for those that make another one in the meantime. */
static int read_space(struct pager *p, size_t space, struct error *e)
{
	uint32_t first = p->file->h.n_log, batch = first + 1;
	int r;

	while ((r = read_one(p, space, batch, e)) > 0)
		if (p->file->h.n_log + 1 == PAGER_LOG)
			break;
	size_t n = p->file->h.n_log - first;

	if (r < 0 || !n)
		return r;
	cleanup_free struct uffd_msg *msgs = xcalloc(n, sizeof(*msgs));
	cleanup_free char *path = NULL;

	for (size_t i = 0; i < n; i++)
		msgs[i] = pager_file_log(p->file)[first + i].msg;
	if (!pager_apply(p, space, msgs, n) && p->file->h.n_log < PAGER_LOG / 2)
		return 0;
	path = xstrdup(p->path);
	r = pager_write(p, path, e);
	/* A full disk: what was read is written down where there still is room. */
	if (r < 0 && p->file->h.n_log + 1 < PAGER_LOG) {
		error_clear(e);
		r = 0;
	}
	return r;
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

/* --- placing --------------------------------------------------------------------------------------- */

/* What came of an attempt to place pages. */
enum placed {
	PLACED,
	THERE,  /* it is there already */
	GONE,   /* not mapped there any more, or not ours */
	ENDED,  /* that memory is gone */
	BEHIND, /* events have to be read first */
};

static enum placed what_failed(int code)
{
	switch (code) {
	case EEXIST:
		return THERE;
	case ESRCH:
		return ENDED;
	case EAGAIN:
	case ENOMEM: /* it may come: the threads wait */
		return BEHIND;
	default: /* ENOENT, EFAULT, EINVAL */
		return GONE;
	}
}

/* @data NULL: zeros. *ret_done: bytes. */
static enum placed try_place(int uffd, uint64_t addr, const void *data, uint64_t length, uint64_t *ret_done)
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
		return PLACED;
	return what_failed(errno);
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
		enum placed x =
			try_place(p->missing.spaces[space].fd, addr, from, k * PAGE_SIZE_BYTES, &done);

		/* One call is for one mapping: pages side by side may be in two. */
		if (x == GONE && k > 1) {
			most = k / 2;
			continue;
		}
		/* A mapping may have been moved while the call began. Then the next one is told that it is
		 * behind, until that event was read: nothing is there only if twice in a row it was not, with
		 * no event in between. */
		if (x == GONE && !sure) {
			uint64_t seen = p->n_events;

			r = pager_read(p, e);
			if (r < 0)
				return r;
			sure = p->n_events == seen;
			continue;
		}
		sure = false;
		most = n;
		if (x == PLACED) {
			i += done / PAGE_SIZE_BYTES;
		} else if (x == BEHIND) {
			r = pager_behind(p, e);
		} else if (x == ENDED) {
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

void pager_mark_placed(struct pager *p, size_t source, uint64_t mark)
{
	pager_file_placed(p->file, source)[mark / 64] |= 1ull << (mark % 64);
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
	case PLACED:
		p->n_zeros++;
		break;
	case BEHIND: /* look again: perhaps it is missing after all, as it was moved there */
		*ret_again = true;
		return pager_behind(p, e);
	case ENDED:
		pager_end_space(p, space);
		break;
	case THERE:
	case GONE:
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

/* A range that no address space has: a living memory says so, one that is gone that it is. */
void pager_look_for_ended(struct pager *p)
{
	bool alive = false;

	for (size_t i = 0; i < p->missing.n_spaces; i++) {
		uint64_t done;

		if (p->missing.spaces[i].object != MISSING_PROCESS)
			continue;
		if (!p->missing.spaces[i].ended && try_place(p->missing.spaces[i].fd, PAGE_SIZE_BYTES, NULL,
							     PAGE_SIZE_BYTES, &done) == ENDED)
			pager_end_space(p, i);
		alive |= !p->missing.spaces[i].ended;
	}
	/* Nobody is left who could want what is shared. */
	for (size_t i = 0; i < p->missing.n_spaces && !alive; i++)
		pager_end_space(p, i);
}
