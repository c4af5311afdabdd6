/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Page contents into the private memory of a skeleton.
 *
 * A page that is not there yet is put in place by UFFDIO_COPY, through a userfaultfd of the skeleton's
 * memory:
 *  - in a private mapping of shmem, memfd or huge pages every other way (a store, process_vm_writev) first
 * allocates a page of the file below and then copies it;
 *  - in anonymous memory it is twice as fast as a write that faults, and the kernel never makes a huge page
 * of it: memory that had small pages gets small pages, whatever the mapping's advice or the system's setting
 * says. A page that is there already is written over, with process_vm_writev where it may be and is large,
 * with /proc/PID/mem else.  Files of other file systems have no such way: there a store reads the file's page
 * into the cache and copies it, which costs the file nothing.
 *
 * What was a huge page is made one before it is filled (place_huge): then all its pages are there.
 *
 * Whether a page is there is not recorded but asked: UFFDIO_COPY stops at the first one, and the page map
 * tells the rest.  So what came by fork, by mlock or by an earlier round needs no bookkeeping.
 *
 * The userfaultfd is of the user-mode-only kind: what the kernel itself reads of a missing page fails at once
 * (nothing of ours does) instead of waiting for us.  Where memory is registered, neighbouring mappings don't
 * merge and mlock cannot populate: so nothing is registered while the layout changes or tasks are rebuilt.
 */
#include "engine/place.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/util.h"
#include "procfs/pagemap.h"
#include "state/memory/huge.h"

#ifndef UFFD_USER_MODE_ONLY
#define UFFD_USER_MODE_ONLY 1
#endif
#define LARGE (16u << 10) /* from here on process_vm_writev is the faster one */
#define WORDS 512
#define SMALL (128u << 10) /* anonymous mappings below: to register them costs more than it saves */

void place_init(struct place *pl)
{
	*pl = (struct place){.uffd = -1, .pidfd = -1, .pagemap_fd = -1};
}

void place_deinit(struct place *pl)
{
	if (pl->uffd >= 0)
		close(pl->uffd); /* the last one: nothing is registered any more */
	if (pl->pidfd >= 0)
		close(pl->pidfd);
	if (pl->pagemap_fd >= 0)
		close(pl->pagemap_fd);
	page_set_deinit(&pl->registered);
	page_set_deinit(&pl->refused);
	page_set_deinit(&pl->huge);
	place_init(pl);
}

static struct place *place_of(struct process *p)
{
	return &((struct skeleton *)p->data)->place;
}

static int open_pidfd(struct process *p, struct error *e)
{
	struct place *pl = place_of(p);

	if (pl->pidfd < 0)
		pl->pidfd = (int)syscall(SYS_pidfd_open, p->pid, 0);
	return pl->pidfd < 0 ? error_set(e, errno, "pid %d: open a pidfd", p->pid) : 0;
}

static int open_pagemap(struct process *p, struct error *e)
{
	struct place *pl = place_of(p);

	if (pl->pagemap_fd < 0)
		pl->pagemap_fd = pagemap_open(p->pid);
	return pl->pagemap_fd < 0 ? error_set(e, -pl->pagemap_fd, "open /proc/%d/pagemap", p->pid) : 0;
}

/* --- the userfaultfd ------------------------------------------------------------------------------- */

/* Made by the skeleton, taken over by us, closed there. Where the kernel gives none, everything is written.
 */
static int make_uffd(struct process *p, struct error *e)
{
	struct place *pl = place_of(p);
	struct batch make = BATCH_INIT, end = BATCH_INIT;
	unsigned c = batch_call(&make, "make a userfaultfd", SYS_userfaultfd,
				ARG(O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY));

	batch_accept_any(&make, c);
	batch_opens_fd(&make, c);
	int r = open_pidfd(p, e);

	if (r >= 0)
		r = skeleton_batch(p, &make, e);
	int64_t fd = r < 0 ? -1 : batch_result(&make, c);

	if (r >= 0 && fd >= 0) {
		struct uffdio_api api = {.api = UFFD_API};

		pl->uffd = (int)syscall(SYS_pidfd_getfd, pl->pidfd, (int)fd, 0);
		batch_call(&end, "close it", SYS_close, ARG(fd));
		r = skeleton_batch(p, &end, e);
		if (pl->uffd >= 0 && ioctl(pl->uffd, UFFDIO_API, &api) < 0)
			close(TAKE_FD(pl->uffd));
	}
	pl->no_uffd = pl->uffd < 0;
	batch_deinit(&make);
	batch_deinit(&end);
	return r < 0 ? r : 0;
}

static bool covers(const struct page_set *s, uint64_t start, uint64_t end)
{
	struct page_range range = {start, end};
	const struct page_set all = {&range, 1, 1};
	struct page_set rest = PAGE_SET_INIT;

	page_set_minus(&all, s, &rest);
	bool whole = !rest.n;

	page_set_deinit(&rest);
	return whole;
}

/* Nothing of @v is registered then: where it were, a missing page could not be written. */
static void refuse(struct place *pl, const Ferry__Vma *v)
{
	struct uffdio_range range = {v->start, v->end - v->start};

	ioctl(pl->uffd, UFFDIO_UNREGISTER, &range);
	page_set_remove_range(&pl->registered, v->start, v->end);
	page_set_add(&pl->refused, v->start, v->end);
}

/* 1: missing pages of [start, end) of @v are ours to place; 0: they must be written. A piece of what was
 * registered as part of a larger mapping, and reaches beyond that, is registered too, small as it may be. */
static int enlist(struct process *p, const Ferry__Vma *v, uint64_t start, uint64_t end, struct error *e)
{
	struct place *pl = place_of(p);
	struct uffdio_register reg = {.range = {v->start, v->end - v->start},
				      .mode = UFFDIO_REGISTER_MODE_MISSING};

	/* All of it: neighbours that were registered one by one may be one mapping by now. */
	if (covers(&pl->registered, start, end))
		return 1;
	if (pl->no_uffd)
		return 0;
	if (page_set_overlaps(&pl->refused, v->start, v->end)) {
		refuse(pl, v);
		return 0;
	}
	if (v->kind == FERRY__VMA_KIND__VMA_ANON && v->end - v->start < SMALL &&
	    !page_set_overlaps(&pl->registered, v->start, v->end))
		return 0;
	if (pl->uffd < 0) {
		int r = make_uffd(p, e);

		if (r < 0 || pl->no_uffd)
			return r;
	}
	if (ioctl(pl->uffd, UFFDIO_REGISTER, &reg) < 0) {
		refuse(pl, v);
		return 0;
	}
	page_set_add(&pl->registered, v->start, v->end);
	return 1;
}

void place_pause(struct place *pl)
{
	for (size_t i = 0; i < pl->registered.n; i++) {
		struct uffdio_range range = {pl->registered.r[i].start,
					     pl->registered.r[i].end - pl->registered.r[i].start};

		ioctl(pl->uffd, UFFDIO_UNREGISTER, &range);
	}
	page_set_clear(&pl->registered);
	page_set_clear(&pl->refused);
}

/* --- contents -------------------------------------------------------------------------------------- */

static int write_over(struct process *p, const Ferry__Vma *v, uint64_t addr, const void *data, uint64_t n,
		      struct error *e)
{
	struct skeleton *k = p->data;
	ssize_t done = 0;

	if (n >= LARGE && (v->prot & PROT_WRITE)) {
		const struct iovec from = {(void *)data, n}, to = {(void *)addr, n};

		done = process_vm_writev(p->pid, &from, 1, &to, 1, 0);
		if (done < 0)
			done = 0;
	}
	int r = pwrite_full(k->mem_fd, (const char *)data + done, n - done, (off_t)(addr + done));

	return r < 0 ? error_set(e, -r, "pid %d: write %llu bytes at 0x%llx", p->pid, (unsigned long long)n,
				 (unsigned long long)addr)
		     : 0;
}

/* A huge page of the pool that may not be written to is replaced: Linux 6.2 to 6.13 write it in no way. */
static int write_there(struct process *p, const Ferry__Vma *v, uint64_t addr, const void *data, uint64_t n,
		       struct error *e)
{
	struct skeleton *k = p->data;

	if (!hugetlb_is_private(v) || (v->prot & PROT_WRITE))
		return write_over(p, v, addr, data, n, e);
	struct uffdio_copy c = {.dst = addr, .src = (uintptr_t)data, .len = n};

	page_set_add(&k->drops, addr, addr + n);
	int r = skeleton_flush_drops(p, e);

	if (r >= 0 && ioctl(k->place.uffd, UFFDIO_COPY, &c) < 0)
		r = error_set(e, errno, "pid %d: replace a huge page at 0x%llx", p->pid,
			      (unsigned long long)addr);
	return r;
}

/* Bytes from @addr on that are there (or are not: *ret_there), of at most @n. */
static int extent(struct process *p, uint64_t addr, uint64_t n, uint64_t *ret, bool *ret_there,
		  struct error *e)
{
	uint64_t words[WORDS], pages = MIN(n / PAGE_SIZE_BYTES, (uint64_t)WORDS), i;
	int r = open_pagemap(p, e);

	if (r < 0)
		return r;
	r = pagemap_words(place_of(p)->pagemap_fd, addr, pages, words);
	if (r < 0)
		return error_set(e, -r, "pid %d: read its page map at 0x%llx", p->pid,
				 (unsigned long long)addr);
	for (i = 0; i < pages; i++) {
		bool there = (words[i] & (WORD_PRESENT | WORD_SWAPPED)) && !WORD_MARKER(words[i]);

		if (i && there != *ret_there)
			break;
		*ret_there = there;
	}
	*ret = i * PAGE_SIZE_BYTES;
	return 0;
}

/* Copy to missing pages: as far as they are missing. Bytes done, or -errno; -EFAULT (no error is set): cannot
 * be done in this mapping. */
static int64_t copy_missing(struct process *p, uint64_t addr, const void *data, uint64_t n, uint64_t unit,
			    struct error *e)
{
	for (;;) {
		struct uffdio_copy c = {.dst = addr, .src = (uintptr_t)data, .len = n};

		if (ioctl(place_of(p)->uffd, UFFDIO_COPY, &c) == 0)
			return (int64_t)n;
		if (c.copy > 0)
			return c.copy;
		if (errno == EEXIST)
			return 0;
		/* Two mappings that could not merge here, as they did at the source: one after the other. */
		if (errno == ENOENT && n > unit) {
			n = n / unit / 2 * unit;
			continue;
		}
		if (errno == EFAULT) /* outside of its file: a private mapping of /dev/zero */
			return -EFAULT;
		if (errno != EAGAIN || job_aborted())
			return error_set(e, errno, "pid %d: place %llu bytes at 0x%llx", p->pid,
					 (unsigned long long)n, (unsigned long long)addr);
	}
}

static int copy_in(struct process *p, const Ferry__Vma *v, uint64_t addr, const char *data, uint64_t n,
		   struct error *e)
{
	uint64_t unit = hugetlb_is_private(v) ? HUGE_PAGE_BYTES : PAGE_SIZE_BYTES;

	while (n) {
		int64_t done = copy_missing(p, addr, data, n, unit, e);
		uint64_t there = unit;
		bool is_there = true;
		int r = 0;

		if (done < 0)
			return (int)done;
		addr += done;
		data += done;
		n -= done;
		if (done || !n)
			continue;
		/* Here is one already: how many more? */
		if (n > unit)
			r = extent(p, addr, n, &there, &is_there, e);
		if (r >= 0)
			r = write_there(p, v, addr, data, is_there ? there : unit, e);
		if (r < 0)
			return r;
		there = is_there ? there : unit;
		addr += there;
		data += there;
		n -= there;
	}
	return 0;
}

int place_write(struct process *p, const Ferry__Vma *v, uint64_t addr, const void *data, uint64_t n,
		struct error *e)
{
	int r = enlist(p, v, addr, addr + n, e);

	if (r < 0)
		return r;
	if (r > 0) {
		r = copy_in(p, v, addr, data, n, e);
		if (r != -EFAULT || error_is(e))
			return r;
		refuse(place_of(p), v);
	}
	return write_over(p, v, addr, data, n, e);
}

/* --- huge pages ------------------------------------------------------------------------------------ */

int place_huge(struct process *p, const Ferry__Mm *mm, const struct page_set * not, struct error *e)
{
	struct skeleton *k = p->data;
	struct place *pl = &k->place;
	struct page_set want = PAGE_SET_INIT, fresh = PAGE_SET_INIT;
	int r = 0;

	for (size_t i = 0; i + 1 < mm->n_huge; i += 2)
		page_set_add(&want, mm->huge[i], mm->huge[i + 1]);
	page_set_remove(&want, not );
	page_set_minus(&want, &pl->huge, &fresh);
	if (fresh.n) {
		r = open_pidfd(p, e);
		if (r >= 0)
			r = open_pagemap(p, e);
		place_pause(pl);
	}
	for (size_t i = 0; i < fresh.n && r >= 0; i++)
		huge_make(pl->pidfd, k->mem_fd, pl->pagemap_fd, fresh.r[i].start, fresh.r[i].end);
	page_set_deinit(&pl->huge);
	pl->huge = want;
	page_set_deinit(&fresh);
	return r;
}

void place_dropped(struct place *pl, uint64_t start, uint64_t end)
{
	struct page_set gone = PAGE_SET_INIT;

	page_set_add(&gone, start, end);
	huge_forget(&pl->huge, &gone);
	page_set_deinit(&gone);
}

bool place_keeps_zeros(const struct place *pl, uint64_t start, uint64_t end)
{
	return page_set_overlaps(&pl->huge, start, end);
}
