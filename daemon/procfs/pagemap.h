/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* PAGEMAP_SCAN and pagemap words (Documentation/admin-guide/mm/pagemap.rst). For use on any process by
 * /proc/PID/pagemap. */
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <linux/types.h>

struct scan_region {
	uint64_t start, end, categories;
};
#define SCAN_WPALLOWED  (1ull << 0)
#define SCAN_WRITTEN    (1ull << 1)
#define SCAN_FILE       (1ull << 2)
#define SCAN_PRESENT    (1ull << 3)
#define SCAN_SWAPPED    (1ull << 4)
#define SCAN_PFNZERO    (1ull << 5)
#define SCAN_HUGE       (1ull << 6)
#define SCAN_SOFT_DIRTY (1ull << 7)
#define SCAN_GUARD      (1ull << 8) /* since 6.15 */

struct scan_args {
	uint64_t start, end;
	uint64_t flags; /* 1: WP_MATCHING, 2: CHECK_WPASYNC */
	uint64_t category_inverted, category_mask, category_anyof_mask, return_mask;
};
/* Run over the whole range with as many ioctls as needed (vec full, EINTR), calling @each per region in
 * order. 0 or -errno. */
int pagemap_scan(int pagemap_fd, const struct scan_args *a,
		 int (*each)(void *ctx, const struct scan_region *r), void *ctx);
int pagemap_open(pid_t pid); /* descriptor or -errno; of a zombie leader through a living thread */
/* Populated pages of [start, end): ones whose content belongs to the process (present or really swapped; not
 * markers). With
 * @private_file, pages that are plain file content are left out; without, those that are the zero page. Holes
 * cost nothing. -ESRCH when the memory is gone (exit, exec). */
struct page_set;
int pagemap_populated(int pagemap_fd, uint64_t start, uint64_t end, int private_file, struct page_set *ret);
/* The same; what of it huge pages map goes into @huge as well (may be NULL). */
int pagemap_populated_huge(int pagemap_fd, uint64_t start, uint64_t end, int private_file,
			   struct page_set *ret, struct page_set *huge);
/* What of [start, end) huge pages with content map. 0 or -errno (-ESRCH: no memory any more). */
int pagemap_huge(int pagemap_fd, uint64_t start, uint64_t end, struct page_set *ret);
/* As pagemap_populated_huge, by words and frames, as it is done where there is no PAGEMAP_SCAN: huge pages
 * only where all of one is asked for. */
int pagemap_populated_words(int pagemap_fd, uint64_t start, uint64_t end, struct page_set *ret,
			    struct page_set *huge);

/* Words of /proc/PID/pagemap. */
#define WORD_PRESENT   (1ull << 63)
#define WORD_SWAPPED   (1ull << 62)
#define WORD_FILE      (1ull << 61)
#define WORD_UFFD_WP   (1ull << 57)
#define WORD_EXCLUSIVE (1ull << 56) /* no other page table has it */
/* A marker: no page, although it says swapped. */
#define WORD_MARKER(w) (((w)&WORD_SWAPPED) && ((w)&31) == 31)
/* The words of @n pages at @start. 0 or -errno (-ESRCH: no memory any more). */
int pagemap_words(int pagemap_fd, uint64_t start, size_t n, uint64_t *ret);
/* Pages of [start, end) that the page table has, zero page and file content included, markers not. */
int pagemap_mapped(int pagemap_fd, uint64_t start, uint64_t end, struct page_set *ret);
/* Pages of [start, end) with userfaultfd's write protection, also where there is only a marker. */
int pagemap_protected(int pagemap_fd, uint64_t start, uint64_t end, struct page_set *ret);
