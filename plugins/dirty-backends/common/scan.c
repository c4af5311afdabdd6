/* SPDX-License-Identifier: Apache-2.0 */
/*
 * PRESENT or SWAPPED is not the same as populated: SWAPPED also covers markers, entries without content that
 * a write-protected page left behind, or that a guard is made of.  The words of pagemap tell: a marker has
 * swap type 31 (for hugetlb: shows nothing at all, as does a page that is being migrated, for a moment).
 */
#include "pages.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

struct pm_scan {
	uint64_t size, flags, start, end, walk_end;
	uint64_t vec, vec_len, max_pages;
	uint64_t category_inverted, category_mask, category_anyof_mask, return_mask;
};
#define IOCTL_PAGEMAP_SCAN _IOWR('f', 16, struct pm_scan)
#define VEC_LEN            1024
#define WORDS              4096
#define WORD_SOFT_DIRTY    (1ull << 55)

/* The kernel allocates and clears a buffer for as many regions as are asked for: most of what a small scan
 * costs. */
static uint64_t vec_length(uint64_t bytes)
{
	return bytes / PAGE + 2 < VEC_LEN ? bytes / PAGE + 2 : VEC_LEN;
}

int pages_scan(int pagemap, const struct scan *s, scan_each each, void *ctx)
{
	struct region vec[VEC_LEN];
	uint64_t at = s->start;

	while (at < s->end) {
		/* Always with a vector: a call without one arms empty entries too. */
		struct pm_scan a = {
			.size = sizeof(a),
			.flags = s->flags,
			.start = at,
			.end = s->end,
			.vec = (uintptr_t)vec,
			.vec_len = vec_length(s->end - at),
			.max_pages = s->max_pages,
			.category_mask = s->mask,
			.category_anyof_mask = s->anyof,
			.return_mask = s->ret,
		};
		int n = ioctl(pagemap, IOCTL_PAGEMAP_SCAN, &a);

		if (n < 0)
			return -errno;
		for (int i = 0; i < n; i++) {
			int r = each(ctx, &vec[i]);

			if (r)
				return r;
		}
		if (a.walk_end <= at)
			return -EIO;
		/* walk_end can lie before the end of what was told: the kernel leaves it at the last time its
		 * own buffer was full. What is told there by the next call would come out of order. */
		at = n && vec[n - 1].end > a.walk_end ? vec[n - 1].end : a.walk_end;
		if (s->max_pages)
			break;
	}
	return 0;
}

bool pages_alive(int pagemap)
{
	uint64_t word;

	return pread(pagemap, &word, sizeof(word), 0) == sizeof(word);
}

/* Words of a range, as a rule one the scan calls SWAPPED. @last: what is still unclear is a marker, or
 * nothing. */
static int read_words(struct populated *p, uint64_t start, uint64_t end, bool last)
{
	if (!p->words && !(p->words = malloc(WORDS * sizeof(*p->words))))
		return -ENOMEM;
	while (start < end) {
		uint64_t n = (end - start) / PAGE < WORDS ? (end - start) / PAGE : WORDS;
		ssize_t got = pread(p->pagemap, p->words, n * 8, (off_t)(start / PAGE * 8));

		if (got <= 0)
			return got < 0 ? -errno : -ESRCH;
		n = (uint64_t)got / 8;
		for (uint64_t i = 0; i < n; i++, start += PAGE) {
			uint64_t w = p->words[i];
			bool here = w >> 63 & 1, swapped = w >> 62 & 1, file = w >> 61 & 1;
			bool marker = !here && swapped && (w & 31) == 31;
			bool zeros = here && p->zeros && zeros_is(start, w);
			struct ranges *to = here || swapped ? p->present : last ? NULL : &p->unclear;

			if (marker || (p->private_map ? (here || swapped) && file : zeros))
				to = NULL;
			if (p->by_words && p->dirty && ((w & WORD_SOFT_DIRTY) || (zeros && p->private_map)) &&
			    ranges_add(p->dirty, start, start + PAGE, DIRTY_WRITTEN) < 0)
				return -ENOMEM;
			if (to && ranges_add(to, start, start + PAGE, DIRTY_PRESENT) < 0)
				return -ENOMEM;
		}
	}
	return 0;
}

static int populated_each(void *ctx, const struct region *r)
{
	struct populated *p = ctx;
	bool zeros = r->categories & CAT_PFNZERO;
	int e = 0;

	if (p->dirty && ((r->categories & p->dirty_category) || (zeros && p->private_map)))
		e = ranges_add(p->dirty, r->start, r->end, DIRTY_WRITTEN);
	if (e < 0)
		return e;
	if (r->categories & CAT_SWAPPED)
		return read_words(p, r->start, r->end, false);
	if (p->private_map ? r->categories & CAT_FILE : zeros)
		return 0;
	/* The huge zero page may look like any other huge page. */
	if (p->zeros && !p->private_map && (r->categories & CAT_HUGE))
		return read_words(p, r->start, r->end, true);
	return ranges_add(p->present, r->start, r->end, DIRTY_PRESENT);
}

/* Look again at what was neither here nor there: after a moment a page in migration is here. */
static int second_look(struct populated *p)
{
	const struct timespec ms = {.tv_nsec = 2000000};
	struct ranges *first = p->present, again = {0};
	int r = 0;

	if (!p->unclear.n)
		return 0;
	nanosleep(&ms, NULL);
	p->present = &again;
	for (size_t i = 0; i < p->unclear.n && r == 0; i++)
		r = read_words(p, p->unclear.v[i].start, p->unclear.v[i].end, true);
	p->present = first;
	if (r == 0)
		r = ranges_merge(first, &again);
	ranges_free(&again);
	return r;
}

int pages_populated(struct populated *p, uint64_t start, uint64_t end)
{
	const struct scan s = {
		.start = start,
		.end = end,
		.flags = p->flags,
		.anyof = CAT_POPULATED,
		.ret = CAT_POPULATED | CAT_FILE | CAT_PFNZERO | (p->zeros ? CAT_HUGE : 0) |
		       (p->dirty ? p->dirty_category : 0),
	};
	int r = p->by_words
			? -ENOTTY
			: pages_scan_split(p->pagemap, &s, pages_scan_parts(end - start), populated_each, p);

	if (r == -ENOTTY) { /* a kernel without PAGEMAP_SCAN */
		p->by_words = true;
		r = read_words(p, start, end, true);
	}
	if (r == 0)
		r = second_look(p);
	free(p->words);
	p->words = NULL;
	ranges_free(&p->unclear);
	return r;
}

static int sentence(char *why, size_t size, int code, bool words, const char *fmt, va_list ap)
{
	if (!size)
		return -code;
	int n = vsnprintf(why, size, fmt, ap);

	if (words && n >= 0 && (size_t)n < size)
		snprintf(why + n, size - n, ": %s", strerror(code));
	return -code;
}

int fail(char *why, size_t size, int code, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	int r = sentence(why, size, code, true, fmt, ap);

	va_end(ap);
	return r;
}

int refuse(char *why, size_t size, int code, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	int r = sentence(why, size, code, false, fmt, ap);

	va_end(ap);
	return r;
}
