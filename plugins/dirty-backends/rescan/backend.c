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

#include "pages.h"

struct dirty_session {
	pid_t pid;
	int pagemap;
	struct identity identity;
	struct ranges written, present, answer;
};

static int probe(char *why, size_t why_size)
{
	int fd = target_open(getpid(), "pagemap", O_RDONLY, why, why_size);

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
	if (s->pagemap >= 0)
		close(s->pagemap);
	ranges_free(&s->written);
	ranges_free(&s->present);
	ranges_free(&s->answer);
	free(s);
}

static int attach(const struct dirty_target *t, struct dirty_session **ret, char *why, size_t why_size)
{
	struct dirty_session *s = calloc(1, sizeof(*s));

	if (!s)
		return fail(why, why_size, ENOMEM, "cannot follow process %d", t->pid);
	s->pid = t->pid;
	s->pagemap = target_open(t->pid, "pagemap", O_RDONLY, why, why_size);
	int r = s->pagemap < 0 ? s->pagemap : target_identity(t->pid, &s->identity);

	if (s->pagemap >= 0 && r < 0)
		fail(why, why_size, -r, "cannot read /proc/%d/stat", t->pid);
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
	return target_check(s->pid, s->pagemap, &s->identity, why, why_size);
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

static int gone(const struct dirty_session *s, char *why, size_t why_size)
{
	return refuse(why, why_size, ESRCH, "process %d has exited, or has called exec", s->pid);
}

static int arm(struct dirty_session *s, const struct dirty_vma *v, char *why, size_t why_size)
{
	(void)v;
	return pages_alive(s->pagemap) ? 0 : gone(s, why, why_size);
}

/* In a round the populated pages; at the end everything, as what has no page now may have been dropped, or is
 * shared memory that is in no page table of this process. */
static int find(struct dirty_session *s, const struct dirty_vma *v, enum dirty_collect_mode mode)
{
	struct populated p = {.pagemap = s->pagemap,
			      .private_map =
				      v->kind == DIRTY_VMA_PRIVATE_FILE || v->kind == DIRTY_VMA_HUGETLB,
			      .present = &s->present};
	int r = pages_populated(&p, v->start, v->end);

	if (mode == DIRTY_FINAL) {
		if (r == 0)
			r = ranges_add(&s->written, v->start, v->end, DIRTY_WRITTEN | DIRTY_UNSURE);
		return r < 0 ? r : pages_answer(&s->written, &s->present, true, &s->answer);
	}
	for (size_t i = 0; i < s->present.n && r == 0; i++)
		r = ranges_add(&s->answer, s->present.v[i].start, s->present.v[i].end,
			       DIRTY_WRITTEN | DIRTY_UNSURE);
	return r;
}

static ssize_t collect(struct dirty_session *s, const struct dirty_vma *v, enum dirty_collect_mode mode,
		       const struct dirty_range **ret_ranges, char *why, size_t why_size)
{
	s->written.n = s->present.n = s->answer.n = 0;
	int r = find(s, v, mode);

	if (!pages_alive(s->pagemap)) /* afterwards: what is there now was there during the scan */
		return gone(s, why, why_size);
	if (r < 0)
		return fail(why, why_size, -r, "cannot tell what is populated in %llx-%llx of process %d",
			    (unsigned long long)v->start, (unsigned long long)v->end, s->pid);
	*ret_ranges = s->answer.v;
	return (ssize_t)s->answer.n;
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
