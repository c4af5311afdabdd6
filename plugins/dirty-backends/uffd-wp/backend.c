/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Dirty tracking by userfaultfd write protection in asynchronous mode.
 *
 * The target creates a userfaultfd (one system call in it while it is stopped), we take the descriptor over
 * and close the target's: the tracking then lives and dies with our descriptor.  All else is done from
 * outside on the running target. A protected entry of the page table loses its protection with the first
 * write, by whom and from where so ever (a store, read(2) into it, process_vm_writev); the kernel does that
 * without waking anybody.  PAGEMAP_SCAN tells which entries lost it and protects them again, atomically for
 * each entry: no write falls between the two.
 *
 * What could go wrong, and why it does not:
 *  - An empty entry needs no protection: whatever appears there is not protected and so is told as written.
 * Protecting it would cost page tables for every hole.  So only populated entries are armed, but for
 * shared memory: there an entry can also have been emptied (reclaim) after a write, so that in the final
 * answer each empty one counts as written.  Where the file has data, and up to a limit, empty ones are
 * protected too: they stay clean while only other processes use those pages.
 *  - A scan over several VMAs that meets one which is not tracked fails after it has protected the ones
 * before, and their answer is lost.  So one call never spans VMAs on purpose, and any failure means: the
 * whole VMA is dirty.
 *  - A page that was dropped (MADV_DONTNEED) after it had been copied must be told, or old content would come
 * back. For anonymous memory the quick scan tells it, on kernels where probe.c has seen it do so.  A private
 * file map keeps a marker that looks clean: there, and for huge pages of hugetlbfs, the final answer lists
 * all that is populated, and what is not in the list was dropped.
 *  - A huge page of hugetlbfs that was dropped and then only read is a fresh one that inherits the protection
 * (seen on 6.18).  The drop is told as an event (events.c): after the first one all that is populated of such
 * memory counts as written in the final answer.  So it does where a file is below, which has other ways of
 * losing pages (fallocate, truncate) that nobody tells of.
 *  - The marker of a dropped page is inherited: a store there makes a fresh page of file content that looks
 * clean, and only when the store is tried again the page becomes written.  A thread that is stopped between
 * the two leaves a page with new content that looks unchanged.  So where a thread was stopped outside a
 * system call, all populated pages of private file maps count as written in the final answer.
 *  - After exit or exec some kernels answer "nothing is written" for the memory that is gone: pages_alive()
 * asks.  A process that shared its memory (vfork) and calls exec leaves the old memory alive:
 * followed_check() asks that.
 *  - UFFDIO_WRITEPROTECT would also work on memory that the program itself has registered with a userfaultfd
 * of its own, and make its handler see faults.  It is never used: the scan refuses what is not asynchronous,
 * and UFFDIO_REGISTER refuses (EBUSY) what is another's.
 *  - MADV_GUARD_INSTALL inside a protected file map makes the kernel spin in that call until the protection
 * ends. A file map that has guards already is left alone; where a first one comes during tracking, watch.c
 * takes off the protection.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "followed.h"
#include "uffd.h"
#include "watch.h"

/* Written ranges with holes up to this many pages between them are looked at by one scan: a call costs about
 * as much. */
#define SPAN_GAP (16 * PAGE)

/* Shared memory whose empty entries are protected in one process: 2 MiB of page tables. */
#define EMPTY_ROOM (1ull << 30)

struct dirty_session {
	struct followed f;
	int uffd, maps;
	struct uffd_events shared; /* fd: the userfaultfd of shared memory; -1: it has none of its own */
	bool shared_armed;         /* since it was asked last (shared_sure) */
	bool huge_of_file;         /* of hugetlbfs, private, was armed that is not anonymous */
	uint64_t room;             /* bytes of shared memory whose empty entries may still be protected */
	bool outside_call;
	struct watched watched;
};

/* What the probe found. */
static struct uffd_kernel kernel;
static atomic_bool probed;

static int probe(char *why, size_t why_size)
{
	int r = uffd_probe(&kernel, why, why_size);

	if (r == 0)
		atomic_store(&probed, true);
	return r;
}

/* The mode says what begins: what it costs more than a look at the process is for the last pass only. */
static int begin(struct dirty_session *s, enum dirty_collect_mode mode, char *why, size_t why_size)
{
	int r = followed_check(&s->f, why, why_size);

	if (r == 0)
		s->outside_call = mode == DIRTY_FINAL && target_outside_call(s->f.pid);
	return r;
}

/* Each piece was armed by its own call. */
static int end(struct dirty_session *s, enum dirty_collect_mode mode, char *why, size_t why_size)
{
	int r = mode == DIRTY_ROUND ? watch_commit(&s->watched) : 0;

	return r < 0 ? fail(why, why_size, -r, "cannot watch process %d", s->f.pid) : 0;
}

static void detach(struct dirty_session *s)
{
	if (!s)
		return;
	watch_end(&s->watched);
	if (s->shared.fd >= 0) {
		events_end(&s->shared);
		close(s->shared.fd);
	}
	if (s->uffd >= 0)
		close(s->uffd); /* the last one: the kernel ends registration and protection */
	if (s->maps >= 0)
		close(s->maps);
	followed_close(&s->f);
	free(s);
}

/* Without it shared memory is tracked like any other, and shared_sure() never is. */
static void set_up_shared(struct dirty_session *s, const struct dirty_target *t)
{
	char ignored[64];
	int fd = target_make_uffd(t, ignored, sizeof(ignored));

	if (fd < 0)
		return;
	s->shared.fd = fd;
	if (uffd_handshake(fd, UFFD_FEATURE_EVENT_REMAP | UFFD_FEATURE_EVENT_REMOVE) == 0 &&
	    events_begin(&s->shared) == 0)
		return;
	close(fd);
	s->shared.fd = -1;
}

static int set_up(struct dirty_session *s, const struct dirty_target *t, char *why, size_t why_size)
{
	int r = followed_open(&s->f, t->pid, why, why_size);

	s->uffd = s->maps = s->shared.fd = -1;
	s->room = EMPTY_ROOM;
	if (r < 0)
		return r;
	s->maps = followed_file(t->pid, "maps", O_RDONLY, why, why_size);
	if (s->maps < 0)
		return s->maps;
	s->uffd = target_make_uffd(t, why, why_size);
	if (s->uffd < 0)
		return s->uffd;
	r = uffd_handshake(s->uffd, 0);
	if (r < 0)
		return fail(why, why_size, -r, "the userfaultfd of process %d refused the handshake", t->pid);
	set_up_shared(s, t);
	s->watched = (struct watched){.pid = t->pid, .uffd = s->uffd, .pagemap = s->f.pagemap};
	return kernel.guards ? watch_begin(&s->watched, why, why_size) : 0;
}

static int attach(const struct dirty_target *t, struct dirty_session **ret, char *why, size_t why_size)
{
	int r = atomic_load(&probed) ? 0 : probe(why, why_size);

	if (r < 0)
		return r;
	struct dirty_session *s = calloc(1, sizeof(*s));

	if (!s)
		return fail(why, why_size, ENOMEM, "cannot track process %d", t->pid);
	r = set_up(s, t, why, why_size);
	if (r < 0) {
		detach(s);
		return r;
	}
	*ret = s;
	return 0;
}

static int found(void *ctx, const struct region *r)
{
	(void)r;
	*(bool *)ctx = true;
	return 0;
}

static int ignore(void *ctx, const struct region *r)
{
	(void)ctx;
	(void)r;
	return 0;
}

/* Does the program use guards in this file map? Kernels that cannot tell (EINVAL) have no guards in file
 * maps. */
static bool has_guards(const struct dirty_session *s, const struct dirty_vma *v)
{
	const struct scan scan = {
		.start = v->start, .end = v->end, .mask = CAT_GUARD, .ret = CAT_GUARD, .max_pages = 1};
	bool guards = false;

	return pages_scan(s->f.pagemap, &scan, found, &guards) == 0 && guards;
}

/* The userfaultfd that tells of drops, for what needs that. */
static int uffd_for(const struct dirty_session *s, const struct dirty_vma *v)
{
	bool tells = v->kind == DIRTY_VMA_SHARED || v->kind == DIRTY_VMA_HUGETLB;

	return tells && s->shared.fd >= 0 ? s->shared.fd : s->uffd;
}

static bool is_anonymous(const struct dirty_session *s, const struct dirty_vma *v)
{
	static const char name[] = "/anon_hugepage (deleted)";
	char link[96], target[sizeof(name)];

	snprintf(link, sizeof(link), "/proc/%d/map_files/%llx-%llx", s->f.pid, (unsigned long long)v->start,
		 (unsigned long long)v->end);
	ssize_t n = readlink(link, target, sizeof(target));

	return n == sizeof(name) - 1 && !memcmp(target, name, sizeof(name) - 1);
}

enum { REGISTERED, UNTRACKABLE, INHERITED };

/* Register @v if it is one whole VMA, and take it back if it was not when it happened. A part of a larger one
 * has grown there (mremap in place, a stack) and is registered if the rest is: the scan that arms it will
 * tell. Or -errno. */
static int register_whole(struct dirty_session *s, const struct dirty_vma *v)
{
	struct borders before, after;

	if (!target_borders(s->maps, v, &before))
		return before.merged ? INHERITED : UNTRACKABLE;
	int uffd = uffd_for(s, v);
	int r = uffd_register(uffd, v->start, v->end);

	if (r < 0)
		return r;
	if (target_borders(s->maps, v, &after) && memcmp(&before, &after, sizeof(before)) == 0)
		return REGISTERED;
	if (after.merged)
		return REGISTERED;
	uffd_unregister(uffd, v->start, v->end);
	return UNTRACKABLE;
}

/* Maps that keep markers. */
static bool is_file(const struct dirty_vma *v)
{
	return v->kind == DIRTY_VMA_PRIVATE_FILE || v->kind == DIRTY_VMA_SHARED;
}

static int protect_empty(void *ctx, uint64_t start, uint64_t end)
{
	struct dirty_session *s = ctx;
	const struct scan scan = {.start = start,
				  .end = end,
				  .flags = SCAN_ARM | SCAN_CHECK,
				  .mask = CAT_WRITTEN,
				  .ret = CAT_WRITTEN};

	if (end - start > s->room)
		return 1;
	s->room -= end - start;
	return pages_scan(s->f.pagemap, &scan, ignore, NULL);
}

static int arm(struct dirty_session *s, const struct dirty_vma *v, char *why, size_t why_size)
{
	int r = followed_alive(&s->f, why, why_size);

	s->shared_armed |= v->kind == DIRTY_VMA_SHARED;
	s->huge_of_file |= v->kind == DIRTY_VMA_HUGETLB && !is_anonymous(s, v);
	if (r < 0)
		return r;
	if (is_file(v) && has_guards(s, v))
		return 1;
	if (is_file(v) && kernel.guards && watch_add(&s->watched, v->start, v->end) < 0)
		return fail(why, why_size, ENOMEM, "cannot watch process %d", s->f.pid);
	r = register_whole(s, v);
	if (r == UNTRACKABLE)
		return 1;
	if (r >= 0)
		r = uffd_arm(s->f.pagemap, v->start, v->end, ignore, NULL);
	if (r == 0 && v->kind == DIRTY_VMA_SHARED && s->shared.fd >= 0)
		target_data(s->f.pid, s->maps, v, protect_empty, s);
	if (r == 0)
		return 0;
	int gone = followed_alive(&s->f, why, why_size);

	if (gone < 0)
		return gone;
	/* EBUSY: another userfaultfd's. EINVAL, EPERM, ENOENT: a kind that cannot be protected, or changed
	 * meanwhile. */
	if (r == -EBUSY || r == -EINVAL || r == -EPERM || r == -ENOENT)
		return 1;
	return fail(why, why_size, -r, "cannot track %llx-%llx of process %d", (unsigned long long)v->start,
		    (unsigned long long)v->end, s->f.pid);
}

static int add_written(void *ctx, const struct region *r)
{
	return ranges_add(ctx, r->start, r->end, DIRTY_WRITTEN);
}

/* What is populated of the written ranges, into f->present. */
static int look_inside(struct followed *f)
{
	struct populated p = {.pagemap = f->pagemap, .flags = SCAN_CHECK, .present = &f->present};
	const struct ranges *w = &f->written;
	int r = 0;

	for (size_t i = 0; i < w->n && r == 0;) {
		uint64_t start = w->v[i].start, end = w->v[i].end;

		for (i++; i < w->n && w->v[i].start - end <= SPAN_GAP; i++)
			end = w->v[i].end;
		r = pages_populated(&p, start, end);
	}
	return r;
}

/* All that is populated, and of it, or of what is not, what was written. */
static int look_at_all(struct followed *f, const struct dirty_vma *v, bool files)
{
	struct populated p = {.pagemap = f->pagemap,
			      .private_map = files,
			      .flags = SCAN_CHECK,
			      .dirty_category = CAT_WRITTEN,
			      .present = &f->present,
			      .dirty = &f->written};
	int r = pages_populated(&p, v->start, v->end);

	if (r == 0 && !files) /* whatever has no page may have been dropped */
		r = ranges_add_gaps(&f->written, &f->present, v->start, v->end, DIRTY_WRITTEN);
	return r;
}

static int all_is_written(struct followed *f)
{
	struct ranges all = {0};
	int r = 0;

	for (size_t i = 0; i < f->present.n && r == 0; i++)
		r = ranges_add(&all, f->present.v[i].start, f->present.v[i].end, DIRTY_WRITTEN);
	if (r == 0)
		r = ranges_merge(&f->written, &all);
	ranges_free(&all);
	return r;
}

/* See "What could go wrong": which of the two scans is enough. */
static int collect_final(struct followed *f, const struct dirty_vma *v, bool outside_call, bool huge_sure)
{
	bool files = v->kind == DIRTY_VMA_PRIVATE_FILE || v->kind == DIRTY_VMA_HUGETLB;
	int r;

	if (files || (v->kind == DIRTY_VMA_ANON && kernel.complete)) {
		r = look_at_all(f, v, files);
	} else {
		r = uffd_written(f->pagemap, v->start, v->end, add_written, &f->written);
		if (r == 0)
			r = look_inside(f);
	}
	if (r == 0 && files && (outside_call || (v->kind == DIRTY_VMA_HUGETLB && !huge_sure)))
		r = all_is_written(f);
	return r < 0 ? r : pages_answer(&f->written, &f->present, files, &f->answer);
}

/* Nothing of hugetlbfs was dropped. */
static bool huge_sure(struct dirty_session *s)
{
	return s->shared.fd >= 0 && !s->huge_of_file && !events_removed(&s->shared);
}

static ssize_t collect(struct dirty_session *s, const struct dirty_vma *v, enum dirty_collect_mode mode,
		       const struct dirty_range **ret_ranges, char *why, size_t why_size)
{
	bool final = mode == DIRTY_FINAL;
	struct followed *f = &s->f;

	followed_clear(f);
	int r = final ? collect_final(f, v, s->outside_call, huge_sure(s))
		      : uffd_arm(f->pagemap, v->start, v->end, add_written, &f->written);

	return followed_answer(f, v, r, final ? &f->answer : &f->written, ret_ranges, why, why_size);
}

/* A piece that is new, or was not what had been armed, begins with the arming.  In the final answer pages of
 * shared memory that have no entry, or lost it (reclaim), count as written, if the quick scan tells all. */
static int shared_sure(struct dirty_session *s)
{
	bool sure = s->shared.fd >= 0 && events_none(&s->shared) && !s->shared_armed && !kernel.complete;

	s->shared_armed = false;
	return sure;
}

/* Registering again changes nothing for the owner and is EBUSY for others.  Nobody's, which it was not a
 * moment ago: registered, as arm would. */
static int owns(struct dirty_session *s, const struct dirty_vma *v)
{
	return uffd_register(uffd_for(s, v), v->start, v->end) == 0;
}

static const struct dirty_backend_ops ops = {
	.abi_version = FERRY_DIRTY_BACKEND_ABI,
	.size = sizeof(ops),
	.name = "uffd-wp",
	.summary = "userfaultfd write protection, asynchronous, with PAGEMAP_SCAN (Linux 6.7)",
	.caps = DIRTY_CAP_RUNNING | DIRTY_CAP_PAGE_EXACT | DIRTY_CAP_SHOWS_UW,
	.priority = 100,
	.kinds = DIRTY_KIND(DIRTY_VMA_ANON) | DIRTY_KIND(DIRTY_VMA_PRIVATE_FILE) |
		 DIRTY_KIND(DIRTY_VMA_SHARED) | DIRTY_KIND(DIRTY_VMA_HUGETLB) |
		 DIRTY_KIND(DIRTY_VMA_SHARED_HUGETLB),
	.probe = probe,
	.attach = attach,
	.begin = begin,
	.arm = arm,
	.collect = collect,
	.end = end,
	.detach = detach,
	.shared_sure = shared_sure,
	.owns = owns,
};

const struct dirty_backend_ops *ferry_dirty_backend(void)
{
	return &ops;
}
