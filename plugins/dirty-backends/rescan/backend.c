/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tracking without tracking: whatever has content may have changed, and the caller compares.
 *
 * The backend names the candidates; Ferry keeps a hash (XXH3, 128 bits) of every page it has sent, reads the
 * candidates, and sends those whose hash differs.  Where the hash is taken matters more than who takes it. If
 * this backend read and hashed a page, and Ferry read it a moment later to send it, the page could change in
 * between and change back before the next round: the hash would say "unchanged", the other side would have
 * what nobody looked at.  Stopping the target for the look does not help, as the page is sent after it.  So
 * the hash is of the very bytes that were sent, and then nothing can go wrong: a page is left out only if it
 * is equal to what the other side has.  That holds for a running target, for torn reads, and for writes that
 * no page table sees (devices, other mappings, dropped pages), so it may run with the target running.
 *
 * What the kernel tells narrows the candidates: holes, markers, the zero page in holes that were only read,
 * and pages of private file maps that are still the file's, have no content of the process.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "followed.h"

struct dirty_session {
	struct followed f;
};

static int probe(char *why, size_t why_size)
{
	int fd = followed_file(getpid(), "pagemap", O_RDONLY, why, why_size);

	if (fd < 0)
		return fd;
	bool works = pages_alive(fd);

	close(fd);
	return works ? 0 : refuse(why, why_size, EIO, "/proc/PID/pagemap cannot be read");
}

static void detach(struct dirty_session *s)
{
	if (!s)
		return;
	followed_close(&s->f);
	zeros_leave();
	free(s);
}

static int attach(const struct dirty_target *t, struct dirty_session **ret, char *why, size_t why_size)
{
	struct dirty_session *s = calloc(1, sizeof(*s));

	if (!s)
		return fail(why, why_size, ENOMEM, "cannot follow process %d", t->pid);
	int r = followed_open(&s->f, t->pid, why, why_size);

	zeros_use();
	if (r < 0) {
		detach(s);
		return r;
	}
	*ret = s;
	return 0;
}

static int begin(struct dirty_session *s, enum dirty_collect_mode mode, char *why, size_t why_size)
{
	(void)mode;
	zeros_forget();
	return followed_check(&s->f, why, why_size);
}

/* Nothing needs arming. */
static int end(struct dirty_session *s, enum dirty_collect_mode mode, char *why, size_t why_size)
{
	(void)s;
	(void)mode;
	(void)why;
	(void)why_size;
	return 0;
}

static int arm(struct dirty_session *s, const struct dirty_vma *v, char *why, size_t why_size)
{
	(void)v;
	return followed_alive(&s->f, why, why_size);
}

/* In a round the populated pages; at the end everything, as what has no page now may have been dropped, or is
 * shared memory that is in no page table of this process. */
static int find(struct followed *f, const struct dirty_vma *v, enum dirty_collect_mode mode)
{
	struct populated p = {.pagemap = f->pagemap,
			      .private_map =
				      v->kind == DIRTY_VMA_PRIVATE_FILE || v->kind == DIRTY_VMA_HUGETLB,
			      .present = &f->present,
			      .zeros = true};
	int r = pages_populated(&p, v->start, v->end);

	if (mode == DIRTY_FINAL) {
		if (r == 0)
			r = ranges_add(&f->written, v->start, v->end, DIRTY_WRITTEN | DIRTY_UNSURE);
		return r < 0 ? r : pages_answer(&f->written, &f->present, true, &f->answer);
	}
	for (size_t i = 0; i < f->present.n && r == 0; i++)
		r = ranges_add(&f->answer, f->present.v[i].start, f->present.v[i].end,
			       DIRTY_WRITTEN | DIRTY_UNSURE);
	return r;
}

static ssize_t collect(struct dirty_session *s, const struct dirty_vma *v, enum dirty_collect_mode mode,
		       const struct dirty_range **ret_ranges, char *why, size_t why_size)
{
	struct followed *f = &s->f;

	followed_clear(f);
	return followed_answer(f, v, find(f, v, mode), &f->answer, ret_ranges, why, why_size);
}

static const struct dirty_backend_ops ops = {
	.abi_version = FERRY_DIRTY_BACKEND_ABI,
	.size = sizeof(ops),
	.name = "rescan",
	.summary = "compares all of the memory with hashes of what was sent (any kernel)",
	.caps = DIRTY_CAP_RUNNING | DIRTY_CAP_KEEPS_THP | DIRTY_CAP_UNSURE,
	.priority = 10,
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
};

const struct dirty_backend_ops *ferry_dirty_backend(void)
{
	return &ops;
}
