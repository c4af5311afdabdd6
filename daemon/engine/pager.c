/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Userfaultfds of a running tree, from its start to the last page: what is missing where, huge pages that are
 * put together at the end, memories that end.
 */
#include "engine/pager.h"

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/util.h"
#include "engine/pager_file.h"
#include "procfs/pagemap.h"
#include "state/memory/huge.h"

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
	free(p->pending);
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
