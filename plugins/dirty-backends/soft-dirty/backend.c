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
 * what has no page as dropped, and lists all that is populated of private file maps.
 *  - An entry of a shared mapping is no more than a reference: the kernel may throw it away (reclaim, a huge
 * page taking the place of small ones) and the bit with it, while the memory keeps what was written. In the
 * final answer shared memory that is not dirty is DIRTY_UNSURE.
 *  - Merging equal pages (KSM) makes new entries without the bit: where a process has merged pages, what is
 * not dirty is DIRTY_UNSURE in the final answer.
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

#include "soft_dirty.h"

struct dirty_session {
	pid_t pid;
	int pagemap, clear, ksm;
	struct identity identity;
	bool merges; /* the process has pages merged by KSM */
	struct ranges written, present, answer;
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
	if (s->pagemap >= 0)
		close(s->pagemap);
	if (s->clear >= 0)
		close(s->clear);
	if (s->ksm >= 0)
		close(s->ksm);
	ranges_free(&s->written);
	ranges_free(&s->present);
	ranges_free(&s->answer);
	free(s);
}

static int set_up(struct dirty_session *s, const struct dirty_target *t, char *why, size_t why_size)
{
	char unused[128];
	int r = target_identity(t->pid, &s->identity);

	if (r < 0)
		return fail(why, why_size, -r, "cannot read /proc/%d/stat", t->pid);
	s->pagemap = target_open(t->pid, "pagemap", O_RDONLY, why, why_size);
	if (s->pagemap < 0)
		return s->pagemap;
	s->clear = target_open(t->pid, "clear_refs", O_WRONLY, why, why_size);
	if (s->clear < 0)
		return s->clear;
	s->ksm = target_open(t->pid, "ksm_merging_pages", O_RDONLY, unused, sizeof(unused));
	return 0;
}

static int attach(const struct dirty_target *t, struct dirty_session **ret, char *why, size_t why_size)
{
	int r = atomic_load(&verdict) ? 0 : probe(why, why_size);
	struct dirty_session *s = calloc(1, sizeof(*s));

	if (r == 0 && !s)
		r = fail(why, why_size, ENOMEM, "cannot track process %d", t->pid);
	if (s) {
		s->pid = t->pid;
		s->pagemap = s->clear = s->ksm = -1;
	}
	if (r == 0)
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
	int r = target_check(s->pid, s->pagemap, &s->identity, why, why_size);

	if (r == 0)
		s->merges = mode == DIRTY_FINAL && has_merged_pages(s);
	return r;
}

static int gone(const struct dirty_session *s, char *why, size_t why_size)
{
	return refuse(why, why_size, ESRCH, "process %d has exited, or has called exec", s->pid);
}

/* Armed by `end`. */
static int arm(struct dirty_session *s, const struct dirty_vma *v, char *why, size_t why_size)
{
	if (!pages_alive(s->pagemap))
		return gone(s, why, why_size);
	return v->kind == DIRTY_VMA_HUGETLB || v->kind == DIRTY_VMA_SHARED_HUGETLB;
}

static int add_written(void *ctx, const struct region *r)
{
	return ranges_add(ctx, r->start, r->end, DIRTY_WRITTEN);
}

static bool covers(const struct ranges *r, const struct dirty_vma *v)
{
	return r->n == 1 && r->v[0].start <= v->start && r->v[0].end >= v->end;
}

static int collect_round(struct dirty_session *s, const struct dirty_vma *v)
{
	const struct scan scan = {
		.start = v->start, .end = v->end, .mask = CAT_SOFT_DIRTY, .ret = CAT_SOFT_DIRTY};
	struct populated p = {.pagemap = s->pagemap,
			      .by_words = true,
			      .dirty_category = CAT_SOFT_DIRTY,
			      .present = &s->present,
			      .dirty = &s->answer};
	int r = atomic_load(&verdict) == 1 ? pages_scan(s->pagemap, &scan, add_written, &s->answer)
					   : pages_populated(&p, v->start, v->end);

	if (r == 0 && covers(&s->answer, v))
		s->answer.v[0].flags |= DIRTY_UNSURE;
	return r;
}

/* What is neither written nor empty, in doubt. */
static int doubt(struct dirty_session *s, const struct dirty_vma *v)
{
	struct ranges rest = {0};
	int r = ranges_gaps(&s->written, v->start, v->end, DIRTY_WRITTEN | DIRTY_UNSURE, &rest);

	if (r == 0)
		r = ranges_merge(&s->written, &rest);
	ranges_free(&rest);
	return r;
}

static int collect_final(struct dirty_session *s, const struct dirty_vma *v)
{
	bool files = v->kind == DIRTY_VMA_PRIVATE_FILE;
	struct populated p = {.pagemap = s->pagemap,
			      .private_map = files,
			      .by_words = atomic_load(&verdict) != 1,
			      .dirty_category = CAT_SOFT_DIRTY,
			      .present = &s->present,
			      .dirty = &s->written};
	int r = pages_populated(&p, v->start, v->end);
	bool whole = r == 0 && covers(&s->written, v);

	if (r == 0 && v->kind == DIRTY_VMA_ANON) { /* whatever has no page may have been dropped */
		struct ranges gaps = {0};

		r = ranges_gaps(&s->present, v->start, v->end, DIRTY_WRITTEN, &gaps);
		if (r == 0)
			r = ranges_merge(&s->written, &gaps);
		ranges_free(&gaps);
	}
	if (r == 0 && whole)
		s->written.v[0].flags |= DIRTY_UNSURE;
	if (r == 0 && (v->kind == DIRTY_VMA_SHARED || s->merges))
		r = doubt(s, v);
	return r < 0 ? r : pages_answer(&s->written, &s->present, files, &s->answer);
}

static ssize_t collect(struct dirty_session *s, const struct dirty_vma *v, enum dirty_collect_mode mode,
		       const struct dirty_range **ret_ranges, char *why, size_t why_size)
{
	s->written.n = s->present.n = s->answer.n = 0;
	int r = mode == DIRTY_FINAL ? collect_final(s, v) : collect_round(s, v);

	if (!pages_alive(s->pagemap)) /* afterwards: what is there now was there during the scan */
		return gone(s, why, why_size);
	if (r < 0)
		return fail(why, why_size, -r, "cannot tell what was written in %llx-%llx of process %d",
			    (unsigned long long)v->start, (unsigned long long)v->end, s->pid);
	*ret_ranges = s->answer.v;
	return (ssize_t)s->answer.n;
}

static int end(struct dirty_session *s, enum dirty_collect_mode mode, char *why, size_t why_size)
{
	if (mode == DIRTY_FINAL)
		return 0;
	if (write(s->clear, "4", 1) == 1)
		return pages_alive(s->pagemap) ? 0 : gone(s, why, why_size);
	if (errno == ESRCH)
		return gone(s, why, why_size);
	return fail(why, why_size, errno, "cannot write to /proc/%d/clear_refs", s->pid);
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
};

const struct dirty_backend_ops *ferry_dirty_backend(void)
{
	return &ops;
}
