/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Has a process forked since we looked last?  A child that came and went between two looks leaves nothing in
 * /proc. But fork(2) takes from every page of private memory that it is the process's own alone (the kernel's
 * flag "anonymous, exclusive", shown by /proc/kpageflags), also after the child has ended, until the page is
 * written.
 *
 * So some pages that are protected against writing unnoticed, and are exclusive, are kept in mind, as
 * sentinels.  One that is still protected and no longer exclusive says that there was a fork.  If those that
 * were not written are all exclusive, there was none.  What could go wrong, and why it does not:
 *  - A page that was written after the fork is exclusive again.  A round that protects it anew has reported
 * it, and then it is no sentinel any more (forks_drop_written).
 *  - Memory marked MADV_DONTFORK or MADV_WIPEONFORK is not copied: no sentinel is there.
 *  - A page pinned for a device at the moment of the fork stays exclusive; and pinning one for reading later
 * makes it exclusive again, without a write.  So sentinels are of different mappings, first of those that the
 * program cannot write, which are no buffers; two must be left, and one is enough to tell of a fork.
 *  - A page that moves between two readings is no sentinel any more.
 *
 * Whether the kernel shows the flag is found by experiment.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "base/util.h"
#include "procfs/pagemap.h"
#include "state/memory/memory.h"

#define FEWEST   2  /* sentinels that must have stayed */
#define MOST     64 /* mappings that are looked into for new ones */
#define INTO     8  /* pages of each, from either end */
#define WORD_PFN ((1ull << 55) - 1)

/* Bits of /proc/kpageflags (linux/kernel-page-flags.h); of anonymous memory 34 means exclusive. */
#define FLAG_ANON      (1ull << 12)
#define FLAG_HEAD      (1ull << 15)
#define FLAG_TAIL      (1ull << 16)
#define FLAG_KSM       (1ull << 21)
#define FLAG_EXCLUSIVE (1ull << 34)

enum look { NOTHING, SHARED, EXCLUSIVE };

/* @protected: only if it is. */
static enum look look_at(int pagemap, int flags, uint64_t addr, bool protected)
{
	uint64_t word, again, f;

	if (pagemap_words(pagemap, addr, 1, &word) < 0 || !(word & WORD_PRESENT) || (word & WORD_FILE) ||
	    (protected && !(word & WORD_UFFD_WP)) || !(word & WORD_PFN))
		return NOTHING;
	if (pread(flags, &f, sizeof(f), (off_t)((word & WORD_PFN) * sizeof(f))) != sizeof(f) ||
	    pagemap_words(pagemap, addr, 1, &again) < 0 ||
	    (again ^ word) & (WORD_PRESENT | WORD_UFFD_WP | WORD_PFN))
		return NOTHING;
	if (!(f & FLAG_ANON) || f & (FLAG_HEAD | FLAG_TAIL | FLAG_KSM))
		return NOTHING;
	return f & FLAG_EXCLUSIVE ? EXCLUSIVE : SHARED;
}

/* A page of our own, before and after a fork. */
static bool experiment(int flags)
{
	char *page = mmap(NULL, PAGE_SIZE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int pagemap = pagemap_open(getpid());
	bool works = false;

	if (page != MAP_FAILED && pagemap >= 0) {
		*(volatile char *)page = 1;
		works = look_at(pagemap, flags, (uintptr_t)page, false) == EXCLUSIVE;
		pid_t pid = (pid_t)syscall(SYS_clone, 0, NULL, NULL, NULL,
					   0); /* it sends no signal when it ends */

		if (pid == 0)
			syscall(SYS_exit_group, 0);
		works &= pid > 0 && waitpid(pid, NULL, __WALL) == pid &&
			 look_at(pagemap, flags, (uintptr_t)page, false) == SHARED;
	}
	if (page != MAP_FAILED)
		munmap(page, PAGE_SIZE_BYTES);
	if (pagemap >= 0)
		close(pagemap);
	return works;
}

/* A descriptor of /proc/kpageflags, or -1: they tell nothing here. */
static int open_flags(void)
{
	static enum { UNKNOWN, WORKS, USELESS } kernel;
	int fd = kernel == USELESS ? -1 : open("/proc/kpageflags", O_RDONLY | O_CLOEXEC);

	if (fd >= 0 && kernel == UNKNOWN)
		kernel = experiment(fd) ? WORKS : USELESS;
	if (kernel == WORKS || fd < 0)
		return fd;
	close(fd);
	return -1;
}

static bool is_copied(const Ferry__Vma *v)
{
	return !v->shared && !layout_is_special(v) &&
	       !(v->flags & (FERRY__VMA_FLAG__VMA_DONTFORK | FERRY__VMA_FLAG__VMA_WIPEONFORK |
			     FERRY__VMA_FLAG__VMA_HUGETLB | FERRY__VMA_FLAG__VMA_DROPPABLE | VMA_UFFD_ANY));
}

static bool in_mapping(const struct memory_process *mp, const Ferry__Vma *v)
{
	for (unsigned i = 0; i < mp->n_sentinels; i++)
		if (mp->sentinels[i] >= v->start && mp->sentinels[i] < v->end)
			return true;
	return false;
}

static void choose_in(struct memory_process *mp, int flags, const Ferry__Vma *v)
{
	uint64_t pages = (v->end - v->start) / PAGE_SIZE_BYTES;

	for (uint64_t i = 0; i < MIN(pages, 2ul * INTO); i++) {
		uint64_t at =
			i % 2 ? v->end - (i / 2 + 1) * PAGE_SIZE_BYTES : v->start + i / 2 * PAGE_SIZE_BYTES;

		if (look_at(mp->pagemap_fd, flags, at, true) != EXCLUSIVE)
			continue;
		mp->sentinels[mp->n_sentinels++] = at;
		return;
	}
}

/* Fill up to the full number, one of a mapping; those that cannot be written first. */
static void choose(struct memory_process *mp, int flags)
{
	unsigned looks = 0;

	for (int writable = 0; writable < 2; writable++)
		for (size_t i = 0; i < mp->mm->n_vmas && mp->n_sentinels < SENTINELS && looks < MOST; i++) {
			const Ferry__Vma *v = mp->mm->vmas[i];

			if (!is_copied(v) || !!(v->prot & PROT_WRITE) != writable || in_mapping(mp, v))
				continue;
			looks++;
			choose_in(mp, flags, v);
		}
}

bool forks_none(struct memory_process *mp)
{
	int flags = open_flags();
	unsigned before = mp->n_sentinels, kept = 0, shared = 0;

	if (flags < 0)
		return false;
	/* New ones first: a fork between the two is told by both. */
	choose(mp, flags);
	unsigned n = mp->n_sentinels, stay = 0;

	for (unsigned i = 0; i < n; i++) {
		enum look l = look_at(mp->pagemap_fd, flags, mp->sentinels[i], true);

		shared += i < before && l == SHARED;
		kept += i < before && l == EXCLUSIVE;
		if (l == EXCLUSIVE)
			mp->sentinels[stay++] = mp->sentinels[i];
	}
	mp->n_sentinels = stay;
	close(flags);
	return !shared && kept >= FEWEST;
}

void forks_drop_written(struct memory_process *mp)
{
	unsigned stay = 0;

	for (unsigned i = 0; i < mp->n_sentinels; i++) {
		bool written = true; /* of a mapping that is no longer there */

		for (size_t k = 0; k < mp->n_plan; k++)
			if (mp->sentinels[i] >= mp->plan[k].start && mp->sentinels[i] < mp->plan[k].end)
				written = page_set_has(&mp->plan[k].written, mp->sentinels[i]);
		if (!written)
			mp->sentinels[stay++] = mp->sentinels[i];
	}
	mp->n_sentinels = stay;
}
