/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Transparent huge pages.
 *
 * A backend that protects pages one by one makes the kernel split a huge page with the first store to it.  So
 * what was huge is remembered: what a look at the layout finds, before anything is protected, and what each
 * round finds in the pages it is about to send.  A range of which a page was dropped meanwhile is forgotten:
 * as a huge page it would take more memory than the program has there.
 *
 * With it the layout tells the destination, which makes huge pages before it fills them, and the source
 * collapses what was split when a program is not tracked any more and runs on.  MADV_COLLAPSE works from
 * outside, needs neither MADV_HUGEPAGE nor the system's setting, and is nothing where the page is huge
 * already. It is not used where pages are shared with another process since a fork: a copy would end the
 * sharing.
 */
#include "state/memory/huge.h"

#include <errno.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "base/util.h"
#include "procfs/pagemap.h"

#define COLLAPSE_TRIES 4

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif
#ifndef SYS_process_madvise
#define SYS_process_madvise 440
#endif
#define WORDS (HUGE_PAGE_BYTES / PAGE_SIZE_BYTES)

/* --- source ---------------------------------------------------------------------------------------- */

int huge_note(struct memory_process *mp, const struct proc_maps *maps)
{
	for (size_t i = 0; i < maps->n; i++) {
		const struct proc_vma *v = &maps->v[i];

		/* All ordinary pages are looked at too: only where there is something to be found. */
		if (!v->anon_huge_kb)
			continue;
		int r = pagemap_huge(mp->pagemap_fd, v->start, v->end, &mp->huge);

		if (r == -ESRCH) /* exit and exec are found out by what comes next */
			return 0;
		if (r < 0)
			return r;
	}
	return 0;
}

void huge_forget(struct page_set *huge, const struct page_set *dropped)
{
	struct page_set units = PAGE_SET_INIT;

	if (!huge->n)
		return;
	for (size_t i = 0; i < dropped->n; i++)
		page_set_add(&units, dropped->r[i].start & ~(HUGE_PAGE_BYTES - 1),
			     (dropped->r[i].end + HUGE_PAGE_BYTES - 1) & ~(HUGE_PAGE_BYTES - 1));
	page_set_remove(huge, &units);
	page_set_deinit(&units);
}

void huge_drop(struct page_set *huge, const struct page_set *dropped, struct page_set *ret)
{
	struct page_set made = PAGE_SET_INIT;

	page_set_and(huge, dropped, &made);
	page_set_merge(ret, &made);
	page_set_deinit(&made);
	huge_forget(huge, dropped);
}

void huge_put(struct memory_process *mp, Ferry__Mm *mm)
{
	struct page_set anon = PAGE_SET_INIT, keep = PAGE_SET_INIT;

	for (size_t i = 0; i < mm->n_vmas; i++) {
		const Ferry__Vma *v = mm->vmas[i];

		if (v->kind == FERRY__VMA_KIND__VMA_ANON && !v->shared &&
		    !(v->flags & FERRY__VMA_FLAG__VMA_HUGETLB))
			page_set_add(&anon, v->start, v->end);
	}
	page_set_and(&mp->huge, &anon, &keep);
	page_set_clear(&mp->huge);
	free(mm->huge);
	mm->huge = keep.n ? xcalloc(keep.n * 2, sizeof(*mm->huge)) : NULL;
	mm->n_huge = 0;
	for (size_t i = 0; i < keep.n; i++) {
		uint64_t start = (keep.r[i].start + HUGE_PAGE_BYTES - 1) & ~(HUGE_PAGE_BYTES - 1);
		uint64_t end = keep.r[i].end & ~(HUGE_PAGE_BYTES - 1);

		if (start >= end)
			continue;
		page_set_add(&mp->huge, start, end);
		mm->huge[mm->n_huge++] = start;
		mm->huge[mm->n_huge++] = end;
	}
	page_set_deinit(&anon);
	page_set_deinit(&keep);
}

/* EAGAIN: one of the pages is in somebody's hands for the moment (madvise(2)). */
static int collapse(int pidfd, uint64_t start, uint64_t end)
{
	const struct iovec v = {(void *)start, end - start};

	for (int tries = 1;; tries++) {
		if (syscall(SYS_process_madvise, pidfd, &v, 1, MADV_COLLAPSE, 0) >= 0)
			return 0;
		if (errno != EAGAIN || tries == COLLAPSE_TRIES)
			return -errno;
		nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL);
	}
}

static bool is_whole(int pagemap_fd, uint64_t start)
{
	uint64_t words[WORDS];

	if (pagemap_words(pagemap_fd, start, WORDS, words) < 0)
		return false;
	for (size_t i = 0; i < WORDS; i++)
		if (!(words[i] & WORD_PRESENT) || !(words[i] & WORD_EXCLUSIVE) || (words[i] & WORD_FILE))
			return false;
	return true;
}

void huge_repair(const struct memory_process *mp, int pidfd)
{
	for (size_t i = 0; i < mp->huge.n; i++)
		for (uint64_t at = mp->huge.r[i].start; at < mp->huge.r[i].end; at += HUGE_PAGE_BYTES)
			if (is_whole(mp->pagemap_fd, at))
				collapse(pidfd, at, at + HUGE_PAGE_BYTES);
}

/* --- destination ----------------------------------------------------------------------------------- */

/* One huge page: 0, or -errno. An empty range gets its first page, which is the huge one where the mapping
 * asks for it, and else the small one that a collapse must find. */
static int make_one(int pidfd, int mem_fd, int pagemap_fd, uint64_t at)
{
	uint64_t words[WORDS];
	int r = pagemap_words(pagemap_fd, at, WORDS, words);

	for (size_t i = 0; i < WORDS && r == 0; i++)
		if ((words[i] & WORD_PRESENT) && !(words[i] & WORD_EXCLUSIVE))
			return 0; /* shared with another process that was built: as it is there */
	if (r == 0 && !(words[0] & (WORD_PRESENT | WORD_SWAPPED)))
		r = pwrite_full(mem_fd, "", 1, at);
	return r < 0 ? r : collapse(pidfd, at, at + HUGE_PAGE_BYTES);
}

size_t huge_make(int pidfd, int mem_fd, int pagemap_fd, uint64_t start, uint64_t end)
{
	size_t failed = 0;

	for (uint64_t at = start; at < end; at += HUGE_PAGE_BYTES)
		failed += make_one(pidfd, mem_fd, pagemap_fd, at) < 0;
	return failed;
}
