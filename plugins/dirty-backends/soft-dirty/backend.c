/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Dirty tracking by the soft-dirty bit: the kernel sets it in an entry of the page table with each write,
 * /proc/PID/pagemap (bit 55) or PAGEMAP_SCAN shows it, and a write to /proc/PID/clear_refs resets it, for the
 * whole address space at once.
 *
 * Asking and resetting are two steps, and a write between them is lost: the target stands still from begin to
 * end of a round.  All pieces are asked in between, the reset is made once, in end.  That arms every piece of
 * the process, also those nobody has heard of yet: they are new to the caller, which takes them whole.
 *
 * What could go wrong, and why it does not:
 *  - A new VMA has a flag that makes all of it dirty, holes too; it takes a neighbour with it when they
 * merge. The bit does not tell which it was, but a piece of which every page is dirty, holes included, is
 * suspicious: it is told as DIRTY_UNSURE.
 *  - A dropped page (MADV_DONTNEED) is not dirty, nor is it when it is read again: the final answer names
 * what has no page as dropped, and lists all that is populated of private file maps.  When it was read again
 * it has the zero page, which counts as no page (common/zeros.c); where frames cannot be seen, all that is
 * not dirty is DIRTY_UNSURE in the final answer.
 *  - An entry of a shared mapping is no more than a reference: the kernel may throw it away (reclaim, a huge
 * page taking the place of small ones) and the bit with it, while the memory keeps what was written. In the
 * final answer shared memory that is not dirty is DIRTY_UNSURE.
 *  - Memory that mremap moves in pieces of 2 MiB is not marked: moved.c.
 *  - Merging equal pages (KSM) makes new entries without the bit: where a process has merged pages, what is
 * not dirty is DIRTY_UNSURE in the final answer.
 *  - Another process may write while the target stands still, between the two steps: outside.c finds out
 * whether one can have. If so, in the next round (or the final answer) all that is populated and not dirty is
 * DIRTY_UNSURE.
 *  - The bit does not exist for hugetlb: such memory is not tracked.
 *  - On a kernel without it all calls succeed and nothing is ever dirty: probe.c stores and looks.
 *  - clear_refs finds the memory when it is written to: after an exec that would be the new program's.
 * Nothing is lost by that (it is not tracked yet), and begin has told.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

#include "followed.h"
#include "soft_dirty.h"

struct dirty_session {
	struct followed f;
	struct moved moved;
	struct outside outside;
	struct ranges doubt;
	int clear, ksm;
	bool sees_frames;
	bool merges; /* the process has had pages merged by KSM */
	bool asked;  /* in this round something was collected, and not only armed: that goes as a whole */
	bool missed; /* in the last round something may have been written that was not told */
};

/* What the probe found: 0 not yet run, 1 PAGEMAP_SCAN knows soft-dirty, 2 only the words tell. */
static atomic_int verdict;

static int probe(char *why, size_t why_size)
{
	bool scan = false;
	int r = soft_dirty_probe(&scan, why, why_size);

	if (r == 0)
		atomic_store(&verdict, scan ? 1 : 2);
	return r;
}

static void detach(struct dirty_session *s)
{
	if (!s)
		return;
	followed_close(&s->f);
	if (s->clear >= 0)
		close(s->clear);
	if (s->ksm >= 0)
		close(s->ksm);
	zeros_leave();
	outside_close(&s->outside);
	moved_free(&s->moved);
	ranges_free(&s->doubt);
	free(s);
}

static int set_up(struct dirty_session *s, const struct dirty_target *t, char *why, size_t why_size)
{
	pid_t pid = t->pid;
	char unused[128];
	int r = followed_open(&s->f, pid, why, why_size);

	s->clear = s->ksm = s->outside.uffd = -1;
	s->sees_frames = zeros_use();
	if (r < 0)
		return r;
	s->clear = followed_file(pid, "clear_refs", O_WRONLY, why, why_size);
	if (s->clear < 0)
		return s->clear;
	s->ksm = followed_file(pid, "ksm_merging_pages", O_RDONLY, unused, sizeof(unused));
	outside_open(&s->outside, t);
	return 0;
}

static int attach(const struct dirty_target *t, struct dirty_session **ret, char *why, size_t why_size)
{
	int r = atomic_load(&verdict) ? 0 : probe(why, why_size);

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

/* Kernels that cannot tell (before 5.19) are asked as a whole; what cannot be found out is a yes. */
static bool has_merged_pages(const struct dirty_session *s)
{
	char text[32] = "";
	int fd = s->ksm >= 0 ? s->ksm : open("/sys/kernel/mm/ksm/pages_shared", O_RDONLY | O_CLOEXEC);
	ssize_t n = fd >= 0 ? pread(fd, text, sizeof(text) - 1, 0) : -1;
	bool absent = fd < 0 && errno == ENOENT;

	if (fd >= 0 && fd != s->ksm)
		close(fd);
	return !absent && (n <= 0 || atol(text) != 0);
}

static int begin(struct dirty_session *s, enum dirty_collect_mode mode, char *why, size_t why_size)
{
	int r = followed_check(&s->f, why, why_size);

	zeros_forget();
	if (mode == DIRTY_ROUND) {
		moved_begin(&s->moved);
		s->asked = false;
		if (r == 0)
			outside_begin(&s->outside);
	}
	s->merges |= r == 0 && has_merged_pages(s);
	return r;
}

static bool told_by_scan(void)
{
	return atomic_load(&verdict) == 1;
}

/* What may have come by a move, into s->doubt. @arm: it is new. Where frames cannot be seen all is in doubt
 * at the end. */
static int find_moved(struct dirty_session *s, const struct dirty_vma *v, enum dirty_collect_mode mode,
		      bool arm)
{
	s->doubt.n = 0;
	if (!s->sees_frames || v->kind == DIRTY_VMA_SHARED)
		return 0;
	return moved_look(&s->moved, s->f.pagemap, v, told_by_scan(), mode == DIRTY_ROUND,
			  arm ? NULL : &s->doubt);
}

/* Armed by `end`. */
static int arm(struct dirty_session *s, const struct dirty_vma *v, char *why, size_t why_size)
{
	int r = followed_alive(&s->f, why, why_size);

	if (r < 0)
		return r;
	if (v->kind == DIRTY_VMA_HUGETLB || v->kind == DIRTY_VMA_SHARED_HUGETLB)
		return 1;
	r = find_moved(s, v, DIRTY_ROUND, true);
	return r < 0 ? fail(why, why_size, -r, "cannot look at the page table of process %d", s->f.pid) : 0;
}

static int add_written(void *ctx, const struct region *r)
{
	return ranges_add(ctx, r->start, r->end, DIRTY_WRITTEN);
}

static bool covers(const struct ranges *r, const struct dirty_vma *v)
{
	return r->n == 1 && r->v[0].start <= v->start && r->v[0].end >= v->end;
}

/* All that is populated and not in the answer. */
static int add_populated(struct followed *f, const struct dirty_vma *v)
{
	struct ranges all = {0};
	struct populated p = {.pagemap = f->pagemap,
			      .private_map = v->kind == DIRTY_VMA_PRIVATE_FILE,
			      .by_words = !told_by_scan(),
			      .present = &all};
	int r = pages_populated(&p, v->start, v->end);

	for (size_t i = 0; i < all.n; i++)
		all.v[i].flags = DIRTY_WRITTEN | DIRTY_UNSURE;
	if (r == 0)
		r = ranges_add_missing(&f->answer, &all);
	ranges_free(&all);
	return r;
}

static int collect_round(struct dirty_session *s, const struct dirty_vma *v)
{
	struct followed *f = &s->f;
	const struct scan scan = {
		.start = v->start, .end = v->end, .mask = CAT_SOFT_DIRTY, .ret = CAT_SOFT_DIRTY};
	struct populated p = {.pagemap = f->pagemap,
			      .by_words = true,
			      .dirty_category = CAT_SOFT_DIRTY,
			      .present = &f->present,
			      .dirty = &f->answer};
	int r = told_by_scan() ? pages_scan(f->pagemap, &scan, add_written, &f->answer)
			       : pages_populated(&p, v->start, v->end);

	if (r == 0 && covers(&f->answer, v))
		f->answer.v[0].flags |= DIRTY_UNSURE;
	if (r == 0)
		r = find_moved(s, v, DIRTY_ROUND, false);
	if (r == 0)
		r = ranges_add_missing(&f->answer, &s->doubt);
	return r == 0 && s->missed ? add_populated(f, v) : r;
}

static int collect_final(struct dirty_session *s, const struct dirty_vma *v)
{
	struct followed *f = &s->f;
	bool files = v->kind == DIRTY_VMA_PRIVATE_FILE;
	struct populated p = {.pagemap = f->pagemap,
			      .private_map = files,
			      .by_words = !told_by_scan(),
			      .dirty_category = CAT_SOFT_DIRTY,
			      .present = &f->present,
			      .dirty = &f->written,
			      .zeros = true};
	int r = pages_populated(&p, v->start, v->end);
	bool whole = r == 0 && covers(&f->written, v);

	if (r == 0 && v->kind == DIRTY_VMA_ANON) /* whatever has no page may have been dropped */
		r = ranges_add_gaps(&f->written, &f->present, v->start, v->end, DIRTY_WRITTEN);
	if (r == 0 && whole)
		f->written.v[0].flags |= DIRTY_UNSURE;
	if (r == 0)
		r = find_moved(s, v, DIRTY_FINAL, false);
	if (r == 0)
		r = ranges_add_missing(&f->written, &s->doubt);
	if (r == 0 && (v->kind == DIRTY_VMA_SHARED || s->merges || s->missed ||
		       !s->sees_frames)) /* neither written nor empty: in doubt */
		r = ranges_add_gaps(&f->written, &f->written, v->start, v->end, DIRTY_WRITTEN | DIRTY_UNSURE);
	return r < 0 ? r : pages_answer(&f->written, &f->present, files, &f->answer);
}

static ssize_t collect(struct dirty_session *s, const struct dirty_vma *v, enum dirty_collect_mode mode,
		       const struct dirty_range **ret_ranges, char *why, size_t why_size)
{
	struct followed *f = &s->f;

	followed_clear(f);
	s->asked = true;
	int r = mode == DIRTY_FINAL ? collect_final(s, v) : collect_round(s, v);

	return followed_answer(f, v, r, &f->answer, ret_ranges, why, why_size);
}

static int end(struct dirty_session *s, enum dirty_collect_mode mode, char *why, size_t why_size)
{
	if (mode == DIRTY_FINAL)
		return 0;
	moved_end(&s->moved);
	if (write(s->clear, "4", 1) == 1) {
		s->missed = s->asked && !outside_none(&s->outside);
		return followed_alive(&s->f, why, why_size);
	}
	if (errno == ESRCH)
		return refuse(why, why_size, ESRCH, "process %d has exited, or has called exec", s->f.pid);
	return fail(why, why_size, errno, "cannot write to /proc/%d/clear_refs", s->f.pid);
}

/* Where frames cannot be seen all is compared at the end. */
static int still_there(struct dirty_session *s, uint64_t start, uint64_t end)
{
	return !s->sees_frames || moved_still(&s->moved, s->f.pagemap, start, end);
}

static const struct dirty_backend_ops ops = {
	.abi_version = FERRY_DIRTY_BACKEND_ABI,
	.size = sizeof(ops),
	.name = "soft-dirty",
	.summary = "the soft-dirty bit of pagemap, with a short stop for each round (CONFIG_MEM_SOFT_DIRTY)",
	.caps = DIRTY_CAP_KEEPS_THP | DIRTY_CAP_UNSURE,
	.priority = 50,
	.kinds = DIRTY_KIND(DIRTY_VMA_ANON) | DIRTY_KIND(DIRTY_VMA_PRIVATE_FILE) |
		 DIRTY_KIND(DIRTY_VMA_SHARED),
	.probe = probe,
	.attach = attach,
	.begin = begin,
	.arm = arm,
	.collect = collect,
	.end = end,
	.detach = detach,
	.still_there = still_there,
};

const struct dirty_backend_ops *ferry_dirty_backend(void)
{
	return &ops;
}
