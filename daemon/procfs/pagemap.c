/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The kernel tells what is populated in two ways.  PAGEMAP_SCAN (6.7) walks page tables only, so that a hole
 * costs nothing, but its SWAPPED also covers markers: entries without content, left where a write-protected
 * page was dropped, or a guard was installed.  A word of /proc/PID/pagemap shows a marker as swap type 31.
 * So: scan first, and read words only where the scan says SWAPPED.
 *
 * Which pages are huge, words do not say.  Without PAGEMAP_SCAN the frames tell: a whole huge page has 512
 * that follow one another, and /proc/kpageflags knows the first as one of a huge page.  (One that the page
 * table has in small pieces, all of them in place, is taken for huge too: it is as much memory.)  Zero pages
 * are known by their frames as well: the small one's is that of a page of ours that was only read.
 */
#include "procfs/pagemap.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>

#include "base/page_set.h"
#include "base/util.h"
#include "procfs/procfs.h"

/* linux/fs.h of older distributions lacks it. */
struct pm_scan {
	uint64_t size, flags, start, end, walk_end;
	uint64_t vec, vec_len, max_pages;
	uint64_t category_inverted, category_mask, category_anyof_mask, return_mask;
};
_Static_assert(sizeof(struct pm_scan) == 96, "struct pm_scan_arg of linux/fs.h");
#define IOCTL_PAGEMAP_SCAN _IOWR('f', 16, struct pm_scan)
#define SCAN_FLAG_WP       1u
#define VEC_LEN            2048

/* The kernel allocates and clears a buffer for as many regions as are asked for, which is most of what a
 * small scan costs. */
static uint64_t vec_length(uint64_t bytes)
{
	return MIN(bytes / PAGE_SIZE_BYTES + 2, (uint64_t)VEC_LEN);
}

#define WORDS 4096

#define HUGE_WORDS     512
#define WORD_FRAME(w)  ((w) & ((1ull << 55) - 1))
#define FRAME_OF_HUGE  (1ull << 22) /* KPF_THP */
#define FRAME_OF_ZEROS (1ull << 24) /* KPF_ZERO_PAGE */

int pagemap_scan(int fd, const struct scan_args *a, int (*each)(void *ctx, const struct scan_region *r),
		 void *ctx)
{
	cleanup_free struct scan_region *vec = malloc(VEC_LEN * sizeof(*vec));
	uint64_t at = a->start;

	if (!vec)
		return -ENOMEM;
	while (at < a->end) {
		struct pm_scan s = {
			.size = sizeof(s),
			.flags = a->flags,
			.start = at,
			.end = a->end,
			.vec = (uintptr_t)vec,
			.vec_len = vec_length(a->end - at),
			.category_inverted = a->category_inverted,
			.category_mask = a->category_mask,
			.category_anyof_mask = a->category_anyof_mask,
			.return_mask = a->return_mask,
		};
		int n = ioctl(fd, IOCTL_PAGEMAP_SCAN, &s);

		/* After an interrupted call that arms, what was written is no longer known. */
		if (n < 0 && errno == EINTR && !(a->flags & SCAN_FLAG_WP) && !job_aborted())
			continue;
		if (n < 0)
			return -errno;
		for (int i = 0; i < n; i++) {
			int r = each(ctx, &vec[i]);

			if (r)
				return r;
		}
		if (s.walk_end <= at)
			return -EIO; /* no progress: a kernel that breaks its promise */
		/* The kernel may leave walk_end before the end of what it told: each range is told once, in
		 * order. */
		at = n ? MAX(vec[n - 1].end, s.walk_end) : s.walk_end;
	}
	return 0;
}

int pagemap_open(pid_t pid)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/pagemap", pid);
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd >= 0 || errno != ESRCH)
		return fd >= 0 ? fd : -errno;
	/* A leader that has exited has no memory, its threads still do. */
	cleanup_free pid_t *tids = NULL;
	size_t n;
	struct error ignored = ERROR_INIT;

	if (proc_threads(pid, &tids, &n, &ignored) < 0)
		return -ESRCH;
	for (size_t i = 0; i < n; i++) {
		snprintf(path, sizeof(path), "/proc/%d/task/%d/pagemap", pid, tids[i]);
		fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd >= 0)
			return fd;
	}
	return -ESRCH;
}

struct walk {
	int fd;
	bool private_file;
	bool all; /* whatever has a page */
	uint64_t *words;
	struct page_set *ret, *huge;
	int frames; /* /proc/kpageflags, 0: not open */
	bool by_words;
	struct page_set unclear;
};

enum verdict { EMPTY, POPULATED, UNCLEAR };

/* Of the small zero page; ~0: it cannot be seen. */
static uint64_t frame_of_zeros(void)
{
	static _Atomic uint64_t known;
	uint64_t word = 0, frame = atomic_load(&known);

	if (frame)
		return frame;
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	char *p = mmap(NULL, PAGE_SIZE_BYTES, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (fd >= 0 && p != MAP_FAILED) {
		madvise(p, PAGE_SIZE_BYTES, MADV_NOHUGEPAGE);
		(void)*(volatile char *)p;
		if (pread(fd, &word, sizeof(word), (uintptr_t)p / PAGE_SIZE_BYTES * 8) != sizeof(word))
			word = 0;
	}
	if (p != MAP_FAILED)
		munmap(p, PAGE_SIZE_BYTES);
	if (fd >= 0)
		close(fd);
	frame = WORD_FRAME(word) ? WORD_FRAME(word) : ~0ull;
	atomic_store(&known, frame);
	return frame;
}

/* @swapped: the scan said SWAPPED of this page. */
static enum verdict judge(const struct walk *w, uint64_t word, bool swapped)
{
	if (w->all && word & (WORD_PRESENT | WORD_SWAPPED))
		return word & WORD_PRESENT || !WORD_MARKER(word) ? POPULATED : EMPTY;
	if (word & WORD_PRESENT) {
		if (w->private_file)
			return word & WORD_FILE ? EMPTY : POPULATED;
		return w->by_words && WORD_FRAME(word) == frame_of_zeros() ? EMPTY : POPULATED;
	}
	if (word & WORD_SWAPPED) {
		if (WORD_MARKER(word) || (w->private_file && (word & WORD_FILE)))
			return EMPTY;
		return POPULATED;
	}
	/* hugetlb shows neither for a marker nor for a page that is being migrated, which is soon over. */
	if (swapped)
		return UNCLEAR;
	return EMPTY;
}

enum huge { SMALL, HUGE, HUGE_ZEROS };

/* Are the words those of a huge page? Who may not see frames finds none. */
static enum huge judge_huge(struct walk *w, const uint64_t words[HUGE_WORDS])
{
	uint64_t frame = WORD_FRAME(words[0]), flags = 0;

	if (!frame || frame % HUGE_WORDS)
		return SMALL;
	for (size_t i = 0; i < HUGE_WORDS; i++)
		if (!(words[i] & WORD_PRESENT) || WORD_FRAME(words[i]) != frame + i)
			return SMALL;
	if (!w->frames)
		w->frames = open("/proc/kpageflags", O_RDONLY | O_CLOEXEC);
	if (w->frames <= 0 || pread(w->frames, &flags, sizeof(flags), frame * 8) != sizeof(flags))
		return SMALL;
	if (flags & FRAME_OF_ZEROS)
		return HUGE_ZEROS;
	return (flags & FRAME_OF_HUGE) && !(words[0] & WORD_FILE) ? HUGE : SMALL;
}

/* Huge pages among @n words; those of zeros are made to look like nothing. */
static void find_huge(struct walk *w, uint64_t start, size_t n)
{
	size_t i = (HUGE_WORDS - start / PAGE_SIZE_BYTES % HUGE_WORDS) % HUGE_WORDS;

	for (; i + HUGE_WORDS <= n; i += HUGE_WORDS) {
		enum huge huge = judge_huge(w, w->words + i);

		if (huge == HUGE_ZEROS)
			memset(w->words + i, 0, HUGE_WORDS * sizeof(*w->words));
		else if (huge == HUGE && w->huge)
			page_set_add(w->huge, start + i * PAGE_SIZE_BYTES,
				     start + (i + HUGE_WORDS) * PAGE_SIZE_BYTES);
	}
}

static int read_words(struct walk *w, uint64_t start, uint64_t end, bool swapped, bool last)
{
	while (start < end) {
		/* No huge page lies in two pieces. */
		size_t n = MIN((end - start) / PAGE_SIZE_BYTES, WORDS - start / PAGE_SIZE_BYTES % HUGE_WORDS);
		ssize_t got = pread(w->fd, w->words, n * 8, start / PAGE_SIZE_BYTES * 8);

		if (got < 0 && errno == EINTR && !job_aborted())
			continue;
		if (got <= 0)
			return got < 0 ? -errno : -ESRCH; /* the end of the file: no memory any more */
		n = got / 8;
		if (w->by_words && !w->all && !w->private_file)
			find_huge(w, start, n);
		for (size_t i = 0; i < n; i++, start += PAGE_SIZE_BYTES) {
			enum verdict v = judge(w, w->words[i], swapped);

			if (v == POPULATED)
				page_set_add(w->ret, start, start + PAGE_SIZE_BYTES);
			else if (v == UNCLEAR && !last)
				page_set_add(&w->unclear, start, start + PAGE_SIZE_BYTES);
		}
	}
	return 0;
}

static int each(void *ctx, const struct scan_region *r)
{
	struct walk *w = ctx;

	if (r->categories & SCAN_SWAPPED)
		return read_words(w, r->start, r->end, true, false);
	/* The zero page of anonymous memory reads as a hole does. */
	if (!w->all && (w->private_file ? (r->categories & SCAN_FILE) : (r->categories & SCAN_PFNZERO)))
		return 0;
	page_set_add(w->ret, r->start, r->end);
	if (w->huge && (r->categories & SCAN_HUGE))
		page_set_add(w->huge, r->start, r->end);
	return 0;
}

static int second_look(struct walk *w)
{
	const struct timespec ms = {.tv_nsec = 2000000};
	int r = 0;

	if (!w->unclear.n)
		return 0;
	nanosleep(&ms, NULL);
	for (size_t i = 0; i < w->unclear.n && r == 0; i++)
		r = read_words(w, w->unclear.r[i].start, w->unclear.r[i].end, true, true);
	return r;
}

/* After exit or exec some kernels answer "nothing" for the old memory, without an error; the words then end
 * at once. */
static int still_there(int fd, uint64_t addr)
{
	uint64_t word;
	ssize_t n = pread(fd, &word, sizeof(word), addr / PAGE_SIZE_BYTES * 8);

	if (n < 0)
		return -errno;
	return n == 0 ? -ESRCH : 0;
}

int pagemap_words(int fd, uint64_t start, size_t n, uint64_t *ret)
{
	for (size_t done = 0; done < n;) {
		ssize_t got = pread(fd, ret + done, (n - done) * 8, (start / PAGE_SIZE_BYTES + done) * 8);

		if (got < 0 && errno == EINTR && !job_aborted())
			continue;
		if (got < 8)
			return got < 0 ? -errno : -ESRCH;
		done += got / 8;
	}
	return 0;
}

static int walk_words(struct walk *w, uint64_t start, uint64_t end)
{
	w->by_words = true;
	int r = read_words(w, start, end, false, true);

	if (w->frames > 0)
		close(w->frames);
	return r;
}

static int walk_pages(struct walk *w, uint64_t start, uint64_t end)
{
	const struct scan_args a = {
		.start = start,
		.end = end,
		.category_anyof_mask = SCAN_PRESENT | SCAN_SWAPPED,
		.return_mask =
			SCAN_PRESENT | SCAN_SWAPPED | SCAN_FILE | SCAN_PFNZERO | (w->huge ? SCAN_HUGE : 0),
	};

	w->words = malloc(WORDS * sizeof(*w->words));
	if (!w->words)
		return -ENOMEM;
	int r = pagemap_scan(w->fd, &a, each, w);

	if (r == -ENOTTY) /* a kernel without PAGEMAP_SCAN */
		r = walk_words(w, start, end);
	if (r == 0)
		r = second_look(w);
	if (r == 0)
		r = still_there(w->fd, start);
	free(w->words);
	page_set_deinit(&w->unclear);
	return r;
}

int pagemap_populated_huge(int fd, uint64_t start, uint64_t end, int private_file, struct page_set *ret,
			   struct page_set *huge)
{
	struct walk w = {.fd = fd, .private_file = private_file, .ret = ret, .huge = huge};

	return walk_pages(&w, start, end);
}

int pagemap_populated(int fd, uint64_t start, uint64_t end, int private_file, struct page_set *ret)
{
	return pagemap_populated_huge(fd, start, end, private_file, ret, NULL);
}

static int add_region(void *ctx, const struct scan_region *r)
{
	page_set_add(ctx, r->start, r->end);
	return 0;
}

int pagemap_populated_words(int fd, uint64_t start, uint64_t end, struct page_set *ret, struct page_set *huge)
{
	struct walk w = {.fd = fd, .ret = ret, .huge = huge};

	w.words = malloc(WORDS * sizeof(*w.words));
	int r = w.words ? walk_words(&w, start, end) : -ENOMEM;

	free(w.words);
	return r;
}

int pagemap_huge(int fd, uint64_t start, uint64_t end, struct page_set *ret)
{
	/* The huge zero page is no memory. */
	const struct scan_args a = {.start = start,
				    .end = end,
				    .category_inverted = SCAN_PFNZERO | SCAN_FILE,
				    .category_mask = SCAN_HUGE | SCAN_PFNZERO | SCAN_FILE,
				    .return_mask = SCAN_HUGE};
	int r = pagemap_scan(fd, &a, add_region, ret);

	if (r == -ENOTTY) {
		struct page_set populated = PAGE_SET_INIT;

		r = pagemap_populated_words(fd, start, end, &populated, ret);
		page_set_deinit(&populated);
	}
	return r;
}

int pagemap_mapped(int fd, uint64_t start, uint64_t end, struct page_set *ret)
{
	struct walk w = {.fd = fd, .all = true, .ret = ret};

	return walk_pages(&w, start, end);
}

/* Words, not the scan: its WRITTEN means the same only where the protection is asynchronous. */
int pagemap_protected(int fd, uint64_t start, uint64_t end, struct page_set *ret)
{
	cleanup_free uint64_t *words = malloc(WORDS * sizeof(*words));
	int r = words ? 0 : -ENOMEM;

	while (start < end && r == 0) {
		size_t n = MIN((end - start) / PAGE_SIZE_BYTES, WORDS);

		r = pagemap_words(fd, start, n, words);
		for (size_t i = 0; r == 0 && i < n; i++, start += PAGE_SIZE_BYTES)
			if (words[i] & WORD_UFFD_WP)
				page_set_add(ret, start, start + PAGE_SIZE_BYTES);
	}
	return r;
}
