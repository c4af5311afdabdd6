/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Skeletons that start with pages missing: docs/post-copy.md.
 *
 * The userfaultfd is made by the skeleton while it is still ours (and root's: the kernel's own accesses wait,
 * too), taken over and closed there.  Mappings are registered last of all, when nothing of ours writes to
 * that memory any more; then what the source has kept must be missing, page by page: a page that is there by
 * then would never be fetched.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "base/util.h"
#include "engine/pager.h"
#include "engine/rebuild.h"
#include "procfs/pagemap.h"

#define FEATURES                                                                          \
	(UFFD_FEATURE_EVENT_FORK | UFFD_FEATURE_EVENT_REMAP | UFFD_FEATURE_EVENT_REMOVE | \
	 UFFD_FEATURE_EVENT_UNMAP)
#ifndef UFFD_FEATURE_MINOR_SHMEM
#define UFFD_FEATURE_MINOR_SHMEM (1 << 10)
#endif
#define FEATURES_SHARED (UFFD_FEATURE_MISSING_SHMEM | UFFD_FEATURE_MINOR_SHMEM)
#define LOOK_GAP        (64 * PAGE_SIZE_BYTES) /* one call for pages that are closer together */

struct lazy {
	pid_t pid;
	struct page_set pages;  /* as the source lists them */
	struct page_set own;    /* the part of them that is private memory */
	struct page_set shared; /* pages of shared memory that are missing, whoever lists them */
	struct page_set registered;
	int uffd;
};

struct lazy_object {
	uint64_t id;
	struct page_set missing; /* offsets */
};

bool lazy_possible(bool shared)
{
	struct uffdio_api api = {.api = UFFD_API, .features = FEATURES | (shared ? FEATURES_SHARED : 0)};
	cleanup_close int fd = syscall(SYS_userfaultfd, O_CLOEXEC);

	return fd >= 0 && ioctl(fd, UFFDIO_API, &api) == 0;
}

int restore_expect_missing(struct restore *r, pid_t pid, const uint64_t *pairs, size_t n, struct error *e)
{
	struct lazy l = {.pid = pid, .uffd = -1};

	for (size_t i = 0; i + 1 < n; i += 2) {
		if (pairs[i] >= pairs[i + 1] || (pairs[i] | pairs[i + 1]) % PAGE_SIZE_BYTES ||
		    (i && pairs[i] < pairs[i - 1])) {
			page_set_deinit(&l.pages);
			return error_say(e, EPROTO, "pid %d: the list of its missing pages is none", pid);
		}
		page_set_add(&l.pages, pairs[i], pairs[i + 1]);
	}
	/* For the skeletons: no huge pages are made there. */
	Ferry__Left *left = xmalloc(sizeof(*left));

	ferry__left__init(left);
	left->ranges = xmemdup(pairs, n * sizeof(*pairs));
	left->n_ranges = n;
	r->snapshot.putting_warm = false;
	snapshot_put(&r->snapshot, FERRY__RECORD_TYPE__RECORD_LEFT, pid, 0, &left->base);
	r->lazy = xrealloc(r->lazy, (r->n_lazy + 1) * sizeof(*r->lazy));
	r->lazy[r->n_lazy++] = l;
	return 0;
}

uint64_t restore_missing_bytes(const struct restore *r)
{
	uint64_t n = 0;

	for (size_t i = 0; i < r->n_lazy; i++)
		n += page_set_bytes(&r->lazy[i].pages);
	return n;
}

void lazy_free(struct restore *r)
{
	for (size_t i = 0; i < r->n_lazy; i++) {
		page_set_deinit(&r->lazy[i].pages);
		page_set_deinit(&r->lazy[i].own);
		page_set_deinit(&r->lazy[i].shared);
		page_set_deinit(&r->lazy[i].registered);
		if (r->lazy[i].uffd >= 0)
			close(r->lazy[i].uffd);
	}
	for (size_t i = 0; i < r->n_lazy_objects; i++)
		page_set_deinit(&r->lazy_objects[i].missing);
	free(r->lazy);
	free(r->lazy_objects);
}

/* --- shared memory ------------------------------------------------------------------------------------- */

static const Ferry__Mm *layout_of(const struct restore *r, pid_t pid)
{
	const struct process *p = tree_find(r->skeletons.tree, pid);

	return p && p->data ? ((const struct skeleton *)p->data)->mm : NULL;
}

static struct lazy_object *find_object(const struct restore *r, uint64_t id)
{
	for (size_t i = 0; id && i < r->n_lazy_objects; i++)
		if (r->lazy_objects[i].id == id)
			return &r->lazy_objects[i];
	return NULL;
}

/* What of @set, in addresses of @v or (@back) in offsets of its object, as the other one, into @ret. */
static void translate(const struct page_set *set, const Ferry__Vma *v, bool back, struct page_set *ret)
{
	uint64_t from = back ? v->offset : v->start, to = back ? v->start : v->offset;
	struct page_set here = PAGE_SET_INIT, part = PAGE_SET_INIT;

	page_set_add(&here, from, from + (v->end - v->start));
	page_set_and(set, &here, &part);
	for (size_t i = 0; i < part.n; i++)
		page_set_add(ret, part.r[i].start - from + to, part.r[i].end - from + to);
	page_set_deinit(&here);
	page_set_deinit(&part);
}

/* Which of the pages of @l are its own, which those of objects. */
static int split(struct restore *r, struct lazy *l, struct error *e)
{
	const Ferry__Mm *mm = layout_of(r, l->pid);
	struct page_set shared = PAGE_SET_INIT;

	for (size_t i = 0; mm && i < mm->n_vmas; i++) {
		const Ferry__Vma *v = mm->vmas[i];

		if (!memory_shared_may_stay(v) || !page_set_overlaps(&l->pages, v->start, v->end))
			continue;
		if (restore_object_fd(&r->rebuild, v->object) < 0)
			return error_say(e, EPROTO, "pid %d: pages at 0x%llx are missing of no shared memory",
					 l->pid, (unsigned long long)v->start);
		if (!find_object(r, v->object)) {
			r->lazy_objects =
				xrealloc(r->lazy_objects, (r->n_lazy_objects + 1) * sizeof(*r->lazy_objects));
			r->lazy_objects[r->n_lazy_objects++] = (struct lazy_object){.id = v->object};
		}
		translate(&l->pages, v, false, &find_object(r, v->object)->missing);
		page_set_add(&shared, v->start, v->end);
	}
	page_set_minus(&l->pages, &shared, &l->own);
	page_set_deinit(&shared);
	return 0;
}

static struct lazy *lazy_of(struct restore *r, pid_t pid)
{
	for (size_t i = 0; i < r->n_lazy; i++)
		if (r->lazy[i].pid == pid)
			return &r->lazy[i];
	r->lazy = xrealloc(r->lazy, (r->n_lazy + 1) * sizeof(*r->lazy));
	r->lazy[r->n_lazy] = (struct lazy){.pid = pid, .uffd = -1};
	return &r->lazy[r->n_lazy++];
}

/* Every process that maps an object of which pages are missing, whether it maps these or not: a mapping can
 * grow. */
static int find_mappers(struct restore *r, pid_t pid, struct error *e)
{
	const Ferry__Mm *mm = layout_of(r, pid);

	for (size_t i = 0; mm && i < mm->n_vmas; i++) {
		const Ferry__Vma *v = mm->vmas[i];
		const struct lazy_object *o = find_object(r, v->object);

		if (!o)
			continue;
		if (!memory_shared_may_stay(v))
			return error_say(e, EPROTO,
					 "pid %d: what is mapped at 0x%llx cannot have missing pages", pid,
					 (unsigned long long)v->start);
		translate(&o->missing, v, true, &lazy_of(r, pid)->shared);
	}
	return 0;
}

/* Each has its page, with whatever content: a hole is then what a program has taken away (pager_shared.c). */
static int allocate(struct restore *r, const struct lazy_object *o, struct error *e)
{
	int fd = restore_object_fd(&r->rebuild, o->id);

	for (size_t i = 0; i < o->missing.n; i++)
		if (fallocate(fd, FALLOC_FL_KEEP_SIZE, (off_t)o->missing.r[i].start,
			      (off_t)(o->missing.r[i].end - o->missing.r[i].start)) < 0)
			return error_set(e, errno, "allocate %llu bytes of shared memory object %llu",
					 (unsigned long long)page_set_bytes(&o->missing),
					 (unsigned long long)o->id);
	return 0;
}

static int prepare_shared(struct restore *r, struct error *e)
{
	int x = 0;

	for (size_t i = 0, n = r->n_lazy; i < n && x >= 0; i++)
		x = split(r, &r->lazy[i], e);
	for (size_t i = 0; r->n_lazy_objects && i < r->skeletons.tree->n && x >= 0; i++)
		x = find_mappers(r, r->skeletons.tree->procs[i]->pid, e);
	for (size_t i = 0; i < r->n_lazy_objects && x >= 0; i++)
		x = allocate(r, &r->lazy_objects[i], e);
	return x;
}

/* --- before the tasks are rebuilt ---------------------------------------------------------------------- */

static int make(struct process *p, bool shared, int *ret, struct error *e)
{
	struct uffdio_api api = {.api = UFFD_API, .features = FEATURES | (shared ? FEATURES_SHARED : 0)};
	struct batch b = BATCH_INIT, end = BATCH_INIT;
	cleanup_close int pidfd = sys_pidfd_open(p->pid, 0), fd = -1;
	unsigned c = batch_call(&b, "make a userfaultfd", SYS_userfaultfd, ARG(O_CLOEXEC | O_NONBLOCK));

	batch_opens_fd(&b, c);
	int r = skeleton_batch(p, &b, e);

	if (r >= 0) {
		fd = sys_pidfd_getfd(pidfd, (int)batch_result(&b, c));
		batch_call(&end, "close a userfaultfd", SYS_close, ARG(batch_result(&b, c)));
		r = fd < 0 ? error_set(e, -fd, "pid %d: take a userfaultfd over", p->pid)
			   : skeleton_batch(p, &end, e);
	}
	if (r >= 0 && ioctl(fd, UFFDIO_API, &api) < 0)
		r = error_set(e, errno, "pid %d: a userfaultfd that tells of forks%s", p->pid,
			      shared ? " and of shared memory" : "");
	batch_deinit(&b);
	batch_deinit(&end);
	if (r >= 0)
		*ret = TAKE_FD(fd);
	return r;
}

int lazy_make(struct restore *r, struct error *e)
{
	int x = 0;

	for (size_t i = 0; i < r->n_lazy && x >= 0; i++) {
		struct process *p = tree_find(r->skeletons.tree, r->lazy[i].pid);

		if (!p || !p->data)
			return error_say(e, EPROTO, "pages are missing of pid %d, which is not in the tree",
					 r->lazy[i].pid);
		x = make(p, r->n_lazy_objects, &r->lazy[i].uffd, e);
	}
	return x;
}

/* --- at last ------------------------------------------------------------------------------------------- */

static int register_vmas(const struct restore *r, struct lazy *l, const Ferry__Mm *mm, struct error *e)
{
	struct page_set rest = PAGE_SET_INIT;
	int x = 0;

	for (size_t i = 0; i < mm->n_vmas && x >= 0; i++) {
		const Ferry__Vma *v = mm->vmas[i];
		bool shared = find_object(r, v->object);
		struct uffdio_register reg = {.range = {v->start, v->end - v->start},
					      .mode = UFFDIO_REGISTER_MODE_MISSING |
						      (shared ? UFFDIO_REGISTER_MODE_MINOR : 0)};

		if (!shared && !page_set_overlaps(&l->pages, v->start, v->end))
			continue;
		if (!shared && (v->kind != FERRY__VMA_KIND__VMA_ANON || v->shared))
			x = error_say(e, EPROTO, "pid %d: pages at 0x%llx cannot be missing", l->pid,
				      (unsigned long long)v->start);
		else if (ioctl(l->uffd, UFFDIO_REGISTER, &reg) < 0)
			x = error_set(e, errno, "pid %d: register 0x%llx-0x%llx with a userfaultfd", l->pid,
				      (unsigned long long)v->start, (unsigned long long)v->end);
		page_set_add(&l->registered, v->start, v->end);
	}
	page_set_minus(&l->pages, &l->registered, &rest);
	if (x >= 0 && rest.n)
		x = error_say(e, EPROTO, "pid %d: pages are missing at 0x%llx, where nothing is mapped",
			      l->pid, (unsigned long long)rest.r[0].start);
	page_set_deinit(&rest);
	return x;
}

/* Pages of the list that are there (of shared memory: in its page table), into @ret (initialised). */
static int find_there(const struct lazy *l, struct page_set *ret, struct error *e)
{
	struct page_set all = PAGE_SET_INIT, there = PAGE_SET_INIT;
	const struct page_set *s = &all;

	cleanup_close int pagemap = pagemap_open(l->pid);
	int r = MIN(pagemap, 0);

	page_set_union(&l->own, &l->shared, &all);
	for (size_t i = 0; i < s->n && r >= 0;) {
		uint64_t start = s->r[i].start, end = s->r[i].end;

		for (i++; i < s->n && s->r[i].start - end <= LOOK_GAP; i++)
			end = s->r[i].end;
		r = pagemap_mapped(pagemap, start, end, &there);
	}
	page_set_and(s, &there, ret);
	page_set_deinit(&there);
	page_set_deinit(&all);
	return r < 0 ? error_set(e, -r, "pid %d: read its page map", l->pid) : 0;
}

static int must_be_missing(const struct lazy *l, struct error *e)
{
	struct page_set wrong = PAGE_SET_INIT;
	int r = find_there(l, &wrong, e);

	if (r >= 0 && wrong.n)
		r = error_say(
			e, EEXIST,
			"pid %d: %llu pages that the source has kept are there already, at 0x%llx first",
			l->pid, (unsigned long long)(page_set_bytes(&wrong) / PAGE_SIZE_BYTES),
			(unsigned long long)wrong.r[0].start);
	page_set_deinit(&wrong);
	return r;
}

/* Older content has been dropped; but the kernel makes huge pages by itself where some of the pages are
 * there. */
int lazy_drop(struct restore *r, struct error *e)
{
	int x = prepare_shared(r, e);

	for (size_t i = 0; i < r->n_lazy && x >= 0; i++) {
		struct process *p = tree_find(r->skeletons.tree, r->lazy[i].pid);
		struct skeleton *k = p ? p->data : NULL;

		if (!k)
			continue;
		x = find_there(&r->lazy[i], &k->drops, e);
		if (x >= 0)
			x = skeleton_flush_drops(p, e);
	}
	return x;
}

int lazy_arm(struct restore *r, struct error *e)
{
	int x = 0;

	for (size_t i = 0; i < r->n_lazy && x >= 0; i++) {
		const struct process *p = tree_find(r->skeletons.tree, r->lazy[i].pid);
		const struct skeleton *k = p->data;

		x = register_vmas(r, &r->lazy[i], k->mm, e);
		if (x >= 0)
			x = must_be_missing(&r->lazy[i], e);
	}
	return x;
}

/* Who maps @o where: of those whose pages are listed under such an address, and of those who will look. */
static int add_object(struct restore *r, struct pager *p, const struct lazy_object *o, struct error *e)
{
	struct stat st;
	cleanup_close int fd = fcntl(restore_object_fd(&r->rebuild, o->id), F_DUPFD_CLOEXEC, 0);

	if (fd < 0 || fstat(fd, &st) < 0)
		return error_set(e, errno, "take over shared memory object %llu", (unsigned long long)o->id);
	size_t number = pager_add_object(p, TAKE_FD(fd), (uint64_t)st.st_size);

	for (size_t i = 0; i < r->n_lazy; i++) {
		const Ferry__Mm *mm = layout_of(r, r->lazy[i].pid);

		for (size_t k = 0; k < mm->n_vmas; k++) {
			const Ferry__Vma *v = mm->vmas[k];
			const struct missing_view view = {v->start, v->end, v->offset, number};

			if (v->object != o->id)
				continue;
			pager_add_shared(p, i, number, v->start, v->end, v->offset);
			missing_add_view(&p->missing, i, &view);
		}
	}
	return 0;
}

int restore_take_pager(struct restore *r, struct pager **ret, struct error *e)
{
	struct pager *p = pager_new();
	int x = 0;

	for (size_t i = 0; i < r->n_lazy; i++) {
		const Ferry__Mm *mm = layout_of(r, r->lazy[i].pid);
		struct lazy *l = &r->lazy[i];

		pager_add_mixed(p, l->pid, &l->pages, &l->own, &l->registered, TAKE_FD(l->uffd));
		pager_set_huge(p, mm->huge, mm->n_huge);
	}
	for (size_t i = 0; i < r->n_lazy_objects && x >= 0; i++)
		x = add_object(r, p, &r->lazy_objects[i], e);
	if (x < 0) {
		pager_free(p);
		return x;
	}
	*ret = p;
	return 0;
}
