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
#include <sys/syscall.h>

#include "base/util.h"
#include "engine/pager.h"
#include "engine/rebuild.h"
#include "procfs/pagemap.h"

#define FEATURES                                                                          \
	(UFFD_FEATURE_EVENT_FORK | UFFD_FEATURE_EVENT_REMAP | UFFD_FEATURE_EVENT_REMOVE | \
	 UFFD_FEATURE_EVENT_UNMAP)
#define LOOK_GAP (64 * PAGE_SIZE_BYTES) /* one call for pages that are closer together */

struct lazy {
	pid_t pid;
	struct page_set pages, registered;
	int uffd;
};

bool lazy_possible(void)
{
	struct uffdio_api api = {.api = UFFD_API, .features = FEATURES};
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
		page_set_deinit(&r->lazy[i].registered);
		if (r->lazy[i].uffd >= 0)
			close(r->lazy[i].uffd);
	}
	free(r->lazy);
}

/* --- before the tasks are rebuilt ---------------------------------------------------------------------- */

static int make(struct process *p, int *ret, struct error *e)
{
	struct uffdio_api api = {.api = UFFD_API, .features = FEATURES};
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
		r = error_set(e, errno, "pid %d: a userfaultfd that tells of forks", p->pid);
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
		x = make(p, &r->lazy[i].uffd, e);
	}
	return x;
}

/* --- at last ------------------------------------------------------------------------------------------- */

static int register_vmas(struct lazy *l, const Ferry__Mm *mm, struct error *e)
{
	struct page_set rest = PAGE_SET_INIT;
	int r = 0;

	for (size_t i = 0; i < mm->n_vmas && r >= 0; i++) {
		const Ferry__Vma *v = mm->vmas[i];
		struct uffdio_register reg = {.range = {v->start, v->end - v->start},
					      .mode = UFFDIO_REGISTER_MODE_MISSING};

		if (!page_set_overlaps(&l->pages, v->start, v->end))
			continue;
		if (v->kind != FERRY__VMA_KIND__VMA_ANON || v->shared)
			r = error_say(e, EPROTO, "pid %d: pages at 0x%llx cannot be missing", l->pid,
				      (unsigned long long)v->start);
		else if (ioctl(l->uffd, UFFDIO_REGISTER, &reg) < 0)
			r = error_set(e, errno, "pid %d: register 0x%llx-0x%llx with a userfaultfd", l->pid,
				      (unsigned long long)v->start, (unsigned long long)v->end);
		page_set_add(&l->registered, v->start, v->end);
	}
	page_set_minus(&l->pages, &l->registered, &rest);
	if (r >= 0 && rest.n)
		r = error_say(e, EPROTO, "pid %d: pages are missing at 0x%llx, where nothing is mapped",
			      l->pid, (unsigned long long)rest.r[0].start);
	page_set_deinit(&rest);
	return r;
}

/* Pages of the list that are there, into @ret (initialised). */
static int find_there(const struct lazy *l, struct page_set *ret, struct error *e)
{
	const struct page_set *s = &l->pages;
	struct page_set there = PAGE_SET_INIT;
	cleanup_close int pagemap = pagemap_open(l->pid);
	int r = MIN(pagemap, 0);

	for (size_t i = 0; i < s->n && r >= 0;) {
		uint64_t start = s->r[i].start, end = s->r[i].end;

		for (i++; i < s->n && s->r[i].start - end <= LOOK_GAP; i++)
			end = s->r[i].end;
		r = pagemap_mapped(pagemap, start, end, &there);
	}
	page_set_and(s, &there, ret);
	page_set_deinit(&there);
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
	int x = 0;

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

		x = register_vmas(&r->lazy[i], k->mm, e);
		if (x >= 0)
			x = must_be_missing(&r->lazy[i], e);
	}
	return x;
}

struct pager *restore_take_pager(struct restore *r)
{
	struct pager *p = pager_new();

	for (size_t i = 0; i < r->n_lazy; i++) {
		const struct process *x = tree_find(r->skeletons.tree, r->lazy[i].pid);
		const Ferry__Mm *mm = ((const struct skeleton *)x->data)->mm;

		pager_add(p, r->lazy[i].pid, &r->lazy[i].pages, &r->lazy[i].registered,
			  TAKE_FD(r->lazy[i].uffd));
		pager_set_huge(p, mm->huge, mm->n_huge);
	}
	return p;
}
