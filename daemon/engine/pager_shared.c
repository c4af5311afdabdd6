/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Shared memory of which pages are missing (docs/post-copy.md, "Shared memory").
 *
 * The object has every page, those that are missing with older content, and nobody's page table has one of
 * these: mappings are registered for both kinds of faults, so a touch is told as a minor one.  What a program
 * takes away (MADV_REMOVE) is then a hole, and a touch of it the other kind of fault: it is given up, before
 * there is a page again.  Only we make pages there, as nothing but these mappings leads to the object.
 *
 * Content is written through a mapping of our own whose holes are registered, too, for user mode only: where
 * the page was taken away meanwhile the kernel says EFAULT in place of making it anew.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/util.h"
#include "engine/pager.h"

#ifndef UFFD_USER_MODE_ONLY
#define UFFD_USER_MODE_ONLY 1
#endif
#define AROUND (64 * PAGE_SIZE_BYTES) /* mapped at once where nothing is missing */

void pager_objects_free(struct pager *p)
{
	for (size_t i = 0; i < p->n_objects; i++) {
		if (p->objects[i].mem)
			munmap(p->objects[i].mem, PAGE_ROUND_UP(p->objects[i].size));
		/* As with userfaultfds: the holder's table is ours. */
		if (p->objects[i].fd >= 0 && !(p->holder && p->holder_is_child))
			close(p->objects[i].fd);
	}
	if (p->own_uffd >= 0)
		close(p->own_uffd);
	free(p->objects);
}

static int map_own(struct pager *p, struct pager_object *o, struct error *e)
{
	struct uffdio_api api = {.api = UFFD_API};
	uint64_t size = PAGE_ROUND_UP(o->size);

	if (o->mem)
		return 0;
	if (p->own_uffd < 0) {
		p->own_uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY);
		if (p->own_uffd < 0 || ioctl(p->own_uffd, UFFDIO_API, &api) < 0)
			return error_set(e, errno, "make a userfaultfd for shared memory");
	}
	char *mem = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, o->fd, 0);
	struct uffdio_register reg = {.range = {(uintptr_t)mem, size}, .mode = UFFDIO_REGISTER_MODE_MISSING};

	if (mem == MAP_FAILED)
		return error_set(e, errno, "map %llu bytes of shared memory", (unsigned long long)size);
	if (ioctl(p->own_uffd, UFFDIO_REGISTER, &reg) < 0) {
		int code = errno;

		munmap(mem, size);
		return error_set(e, code, "register shared memory with a userfaultfd");
	}
	o->mem = mem;
	return 0;
}

static bool is_hole(const struct pager_object *o, uint64_t offset)
{
	return lseek(o->fd, (off_t)offset, SEEK_DATA) != (off_t)offset;
}

/* Bytes written, whole pages; 0: there is no page at @offset any more. */
static int64_t write_own(struct pager *p, struct pager_object *o, uint64_t offset, const void *data,
			 uint64_t length, struct error *e)
{
	uint64_t size = PAGE_ROUND_UP(o->size);

	if (offset > size || length > size - offset)
		return error_say(e, EPROTO, "pages came for 0x%llx of shared memory of %llu bytes",
				 (unsigned long long)offset, (unsigned long long)o->size);
	int r = map_own(p, o, e);
	const struct iovec from = {(void *)data, length}, to = {o->mem + offset, length};

	if (r < 0)
		return r;
	ssize_t n = process_vm_writev(getpid(), &from, 1, &to, 1, 0);
	int code = errno;

	if (n >= (ssize_t)PAGE_SIZE_BYTES)
		return n & ~(int64_t)(PAGE_SIZE_BYTES - 1);
	if ((n >= 0 || code == EFAULT) && is_hole(o, offset))
		return 0;
	return error_set(e, n < 0 ? code : EIO, "write shared memory at 0x%llx", (unsigned long long)offset);
}

int pager_place_shared(struct pager *p, size_t space, uint64_t mark, size_t n, const char *data,
		       struct error *e)
{
	struct pager_object *o = &p->objects[p->missing.spaces[space].object];
	cleanup_free char *zeros = data ? NULL : xcalloc(n, PAGE_SIZE_BYTES);

	for (size_t i = 0; i < n;) {
		uint64_t offset;
		size_t k = pager_together(&p->missing, space, mark + i, n - i, &offset);
		int64_t done = k ? write_own(p, o, offset, (data ? data : zeros) + i * PAGE_SIZE_BYTES,
					     k * PAGE_SIZE_BYTES, e)
				 : 0;

		if (done < 0)
			return (int)done;
		i += done ? (size_t)done / PAGE_SIZE_BYTES : 1;
	}
	return 0;
}

/* The page at @addr, and @length altogether where that can be done, into the page table; whoever waits there
 * goes on, or looks again. */
static int map_pages(struct pager *p, size_t space, uint64_t addr, uint64_t length, bool *ret_again,
		     struct error *e)
{
	struct uffdio_continue c = {.range = {addr, length}};

	*ret_again = false;
	if (ioctl(p->missing.spaces[space].fd, UFFDIO_CONTINUE, &c) == 0 || c.mapped > 0)
		return 0;
	switch (errno) {
	case EAGAIN:
	case ENOMEM:
		*ret_again = true;
		return pager_behind(p, e);
	case ESRCH:
		pager_end_space(p, space);
		return 0;
	default:
		/* One call is for one mapping. */
		if (length > PAGE_SIZE_BYTES)
			return map_pages(p, space, addr, PAGE_SIZE_BYTES, ret_again, e);
		pager_wake(p->missing.spaces[space].fd, addr, PAGE_SIZE_BYTES);
		return 0;
	}
}

/* --- where it is mapped -------------------------------------------------------------------------------- */

/* By placing nothing there: there is no page to be copied at address 4096, but whether the place is one is
 * looked at before. */
int pager_reports(int uffd, uint64_t start, uint64_t end)
{
	struct uffdio_copy c = {.dst = start, .src = PAGE_SIZE_BYTES, .len = end - start};

	if (ioctl(uffd, UFFDIO_COPY, &c) == 0 || errno == EFAULT || errno == EEXIST)
		return 1;
	return errno == EAGAIN ? -EAGAIN : 0;
}

/* A mapping may have become longer than the books have it: what is behind a view is a part of it if it is one
 * mapping with it. */
int pager_view_at(struct pager *p, size_t space, uint64_t addr, uint64_t *ret_object, uint64_t *ret_offset)
{
	const struct missing_space *x = &p->missing.spaces[space];
	struct missing_view *v = missing_view_near(&p->missing, space, addr);

	if (!v)
		return 0;
	if (addr >= v->end) {
		if (page_set_overlaps(&x->registered, addr, addr + PAGE_SIZE_BYTES))
			return 0;
		int r = pager_reports(x->fd, MAX(v->start, v->end - PAGE_SIZE_BYTES), addr + PAGE_SIZE_BYTES);

		if (r <= 0)
			return r;
		missing_view_reaches(&p->missing, space, v, addr + PAGE_SIZE_BYTES);
	}
	*ret_object = v->object;
	*ret_offset = v->offset + (addr - v->start);
	return 1;
}

/* The kernel knows: there are no minor faults of private memory. Nothing is changed where there are. */
int pager_may_be_shared(const struct pager *p, size_t space, uint64_t addr)
{
	const struct missing_space *x = &p->missing.spaces[space];
	struct uffdio_register reg = {.range = {addr, PAGE_SIZE_BYTES},
				      .mode = UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_MINOR};

	if (!x->n_views || page_set_overlaps(&x->registered, addr, addr + PAGE_SIZE_BYTES))
		return 0;
	int r = pager_reports(x->fd, addr, addr + PAGE_SIZE_BYTES);

	return r <= 0 ? r : ioctl(x->fd, UFFDIO_REGISTER, &reg) == 0;
}

/* Threads that wait for a page that will not come. */
static void give_up_waiting(struct pager *p, size_t source, uint64_t mark)
{
	for (size_t i = p->n_waiting; i-- > 0;) {
		const struct pager_fault f = p->waiting[i];

		if (f.source != source || f.mark != mark)
			continue;
		p->waiting[i] = p->waiting[--p->n_waiting];
		if (!p->missing.spaces[f.space].ended)
			pager_wake(p->missing.spaces[f.space].fd, f.addr, PAGE_SIZE_BYTES);
	}
}

int pager_shared_fault(struct pager *p, const struct pager_read *f, uint64_t object, uint64_t offset,
		       int (*ask)(void *ctx, size_t source, uint64_t mark, struct error *e), void *ctx,
		       bool *ret_again, struct error *e)
{
	size_t space;
	uint64_t mark;

	if (!missing_find_shared(&p->missing, object, offset, &space, &mark))
		return f->minor
			       ? map_pages(p, f->space, f->addr,
					   missing_none_in(&p->missing, object, offset, AROUND), ret_again, e)
			       : pager_give_zeros(p, f->space, f->addr, ret_again, e);
	size_t source = p->missing.spaces[space].source;

	if (f->minor) {
		pager_note_waiting(p, &(struct pager_fault){f->space, source, f->addr, mark, f->since});
		return missing_urge(&p->missing, source, mark) ? ask(ctx, source, mark, e) : 0;
	}
	/* What was told may have been of another mapping that was at this address. */
	if (!is_hole(&p->objects[object], offset)) {
		pager_wake(p->missing.spaces[f->space].fd, f->addr, PAGE_SIZE_BYTES);
		return 0;
	}
	/* Before there is a page: a successor must not take that for the old one. */
	pager_mark_placed(p, source, mark);
	missing_drop(&p->missing, space, offset, offset + PAGE_SIZE_BYTES);
	give_up_waiting(p, source, mark);
	return pager_give_zeros(p, f->space, f->addr, ret_again, e);
}

int pager_answer_shared(struct pager *p, const struct pager_fault *f, struct error *e)
{
	uint64_t object, offset;
	bool again = true;
	int r = 0;

	while (again && r >= 0 && !p->missing.spaces[f->space].ended && p->missing.spaces[f->space].n_views) {
		int known = pager_view_at(p, f->space, f->addr, &object, &offset);

		again = false;
		if (known > 0) {
			r = map_pages(p, f->space, f->addr, PAGE_SIZE_BYTES, &again, e);
		} else if (known == 0) {
			pager_wake(p->missing.spaces[f->space].fd, f->addr, PAGE_SIZE_BYTES);
		} else {
			r = pager_behind(p, e);
			again = true;
		}
	}
	return r;
}
