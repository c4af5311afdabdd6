/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * What the backends of this folder share: PAGEMAP_SCAN, arrays of ranges, and the exact look at what is
 * populated. A plugin links nothing of Ferry; it reports out of memory, and does not end the process.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ferry/dirty_backend.h"

#define PAGE 4096ull

#define CAT_WPALLOWED  (1ull << 0)
#define CAT_WRITTEN    (1ull << 1)
#define CAT_FILE       (1ull << 2)
#define CAT_PRESENT    (1ull << 3)
#define CAT_SWAPPED    (1ull << 4)
#define CAT_PFNZERO    (1ull << 5)
#define CAT_HUGE       (1ull << 6)
#define CAT_SOFT_DIRTY (1ull << 7)
#define CAT_GUARD      (1ull << 8)
#define CAT_POPULATED  (CAT_PRESENT | CAT_SWAPPED)

#define SCAN_ARM   1u /* PM_SCAN_WP_MATCHING */
#define SCAN_CHECK 2u /* PM_SCAN_CHECK_WPASYNC */

struct region {
	uint64_t start, end, categories;
};

struct scan {
	uint64_t start, end, flags;
	uint64_t mask, anyof, ret;
	uint64_t max_pages; /* 0: no limit */
};
typedef int (*scan_each)(void *ctx, const struct region *r);
/* 0, what @each returned, or -errno. */
int pages_scan(int pagemap, const struct scan *s, scan_each each, void *ctx);
/* The same by @n threads, each for a part of the range, told in order by the calling one when all are through
 * (up to 16). With SCAN_ARM, when it fails, parts have been armed and not told: all of it counts as written.
 * How many are worth it for so many bytes. */
int pages_scan_split(int pagemap, const struct scan *s, unsigned n, scan_each each, void *ctx);
unsigned pages_scan_parts(uint64_t length);
/* The memory behind an open pagemap is still there. Some kernels answer scans of a memory that is gone with
 * "nothing". */
bool pages_alive(int pagemap);

struct ranges {
	struct dirty_range *v;
	size_t n, cap;
};
/* Append [start, end), ascending (else -ERANGE); joined with the last one where it goes on with the same
 * flags. 0 or -errno. */
int ranges_add(struct ranges *r, uint64_t start, uint64_t end, uint32_t flags);
void ranges_free(struct ranges *r);
/* Put @b into @a (both ascending, flags of @a's kind are kept). 0 or -ENOMEM. */
int ranges_merge(struct ranges *a, const struct ranges *b);
/* Put into @to, with @flags, what of [start, end) is not in @r, which may be the same. 0 or -ENOMEM. */
int ranges_add_gaps(struct ranges *to, const struct ranges *r, uint64_t start, uint64_t end, uint32_t flags);
/* Put into @to what of @more is not in it. 0 or -errno. */
int ranges_add_missing(struct ranges *to, const struct ranges *more);

/* Zero pages, told by their frames (zeros.c), for one thread. False: frames cannot be seen here, and zeros_is
 * knows none; zeros_leave must be called in either case. */
bool zeros_use(void);
void zeros_leave(void);
/* What was found out of huge ones may have changed since. */
void zeros_forget(void);
/* Is the page at @addr with this word of pagemap a zero page? */
bool zeros_is(uint64_t addr, uint64_t word);

/* Append to @present what is populated in [start, end), present or really swapped; in @private_map file
 * content of a file is not, elsewhere the zero page is not: it reads as nothing does. Where @dirty is not
 * NULL, regions with the category @dirty_category go there too, populated or not, and zero pages in a private
 * map of a file: nothing says when they came. Without PAGEMAP_SCAN, or with @by_words, the words of pagemap
 * are read instead, which tell only CAT_SOFT_DIRTY, and zero pages with @zeros (somebody uses them). Without
 * that only PAGEMAP_SCAN tells zero pages, and huge ones not with every kernel. */
struct populated {
	int pagemap;
	bool private_map, by_words, zeros;
	uint64_t flags, dirty_category;
	struct ranges *present, *dirty;
	uint64_t *words;
	struct ranges unclear;
};
int pages_populated(struct populated *p, uint64_t start, uint64_t end);

/*
 * The answer to a final collect: the flags of @written, DIRTY_PRESENT where @present; ranges that are present
 * only are left out unless @all.
 */
int pages_answer(const struct ranges *written, const struct ranges *present, bool all, struct ranges *ret);

/* Write a sentence (with ": errno in words" for @code) and return -@code. */
int fail(char *why, size_t size, int code, const char *fmt, ...) __attribute__((format(printf, 4, 5)));
int refuse(char *why, size_t size, int code, const char *fmt, ...) __attribute__((format(printf, 4, 5)));
