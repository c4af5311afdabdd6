/* SPDX-License-Identifier: Apache-2.0 */
#include "base/page_set.h"

#include <string.h>

#include "base/util.h"

void page_set_deinit(struct page_set *s)
{
	free(s->r);
	memset(s, 0, sizeof(*s));
}

void page_set_clear(struct page_set *s)
{
	s->n = 0;
}

static void reserve(struct page_set *s, size_t n)
{
	if (n <= s->cap)
		return;
	s->cap = MAX(n, s->cap ? s->cap * 2 : 16);
	s->r = xrealloc(s->r, s->cap * sizeof(*s->r));
}

/* Append where start is not below the start of the last range. */
static void append(struct page_set *s, uint64_t start, uint64_t end)
{
	if (s->n && start <= s->r[s->n - 1].end) {
		s->r[s->n - 1].end = MAX(s->r[s->n - 1].end, end);
		return;
	}
	reserve(s, s->n + 1);
	s->r[s->n++] = (struct page_range){start, end};
}

/* Index of the first range that ends at or behind @addr (behind only: @strict). */
static size_t first_ending(const struct page_set *s, uint64_t addr, bool strict)
{
	size_t lo = 0, hi = s->n;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (strict ? s->r[mid].end > addr : s->r[mid].end >= addr)
			hi = mid;
		else
			lo = mid + 1;
	}
	return lo;
}

void page_set_add(struct page_set *s, uint64_t start, uint64_t end)
{
	if (start >= end)
		return;
	if (!s->n || start >= s->r[s->n - 1].start) {
		append(s, start, end);
		return;
	}
	/* [i, j) are the ranges that touch or overlap the new one. */
	size_t i = first_ending(s, start, false), j = i;

	while (j < s->n && s->r[j].start <= end)
		j++;
	if (i == j) {
		reserve(s, s->n + 1);
		memmove(s->r + i + 1, s->r + i, (s->n - i) * sizeof(*s->r));
		s->r[i] = (struct page_range){start, end};
		s->n++;
		return;
	}
	s->r[i] = (struct page_range){MIN(start, s->r[i].start), MAX(end, s->r[j - 1].end)};
	memmove(s->r + i + 1, s->r + j, (s->n - j) * sizeof(*s->r));
	s->n -= j - i - 1;
}

bool page_set_has(const struct page_set *s, uint64_t addr)
{
	size_t i = first_ending(s, addr, true);

	return i < s->n && s->r[i].start <= addr;
}

bool page_set_overlaps(const struct page_set *s, uint64_t start, uint64_t end)
{
	size_t i = first_ending(s, start, true);

	return i < s->n && s->r[i].start < end;
}

bool page_set_covers(const struct page_set *s, uint64_t start, uint64_t end)
{
	size_t i = first_ending(s, start, true);

	return i < s->n && s->r[i].start <= start && s->r[i].end >= end;
}

uint64_t page_set_bytes(const struct page_set *s)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < s->n; i++)
		sum += s->r[i].end - s->r[i].start;
	return sum;
}

void page_set_union(const struct page_set *a, const struct page_set *b, struct page_set *ret)
{
	size_t i = 0, j = 0;

	ret->n = 0;
	while (i < a->n || j < b->n) {
		bool from_a = j == b->n || (i < a->n && a->r[i].start <= b->r[j].start);
		const struct page_range *r = from_a ? &a->r[i++] : &b->r[j++];

		append(ret, r->start, r->end);
	}
}

void page_set_minus(const struct page_set *a, const struct page_set *b, struct page_set *ret)
{
	/* Skip what lies before: one side is often a single VMA, the other a whole process. */
	size_t j = a->n ? first_ending(b, a->r[0].start, true) : 0;

	ret->n = 0;
	for (size_t i = 0; i < a->n; i++) {
		uint64_t at = a->r[i].start, end = a->r[i].end;

		while (j < b->n && b->r[j].end <= at)
			j++;
		/* A range of b may reach into the next one of a: k goes on, j stays. */
		for (size_t k = j; k < b->n && b->r[k].start < end; k++) {
			if (b->r[k].start > at)
				append(ret, at, b->r[k].start);
			at = MIN(b->r[k].end, end);
			j = k;
		}
		if (at < end)
			append(ret, at, end);
	}
}

void page_set_and(const struct page_set *a, const struct page_set *b, struct page_set *ret)
{
	ret->n = 0;
	if (!a->n || !b->n)
		return;
	size_t i = first_ending(a, b->r[0].start, true), j = first_ending(b, a->r[0].start, true);

	while (i < a->n && j < b->n) {
		uint64_t start = MAX(a->r[i].start, b->r[j].start);
		uint64_t end = MIN(a->r[i].end, b->r[j].end);

		if (start < end)
			append(ret, start, end);
		if (a->r[i].end < b->r[j].end)
			i++;
		else
			j++;
	}
}

static void replace(struct page_set *a, struct page_set *by)
{
	free(a->r);
	*a = *by;
}

void page_set_merge(struct page_set *a, const struct page_set *b)
{
	/* The common case in a round: b goes behind a. */
	if (!a->n || !b->n || b->r[0].start >= a->r[a->n - 1].start) {
		reserve(a, a->n + b->n);
		for (size_t i = 0; i < b->n; i++)
			append(a, b->r[i].start, b->r[i].end);
		return;
	}
	struct page_set sum = PAGE_SET_INIT;

	page_set_union(a, b, &sum);
	replace(a, &sum);
}

void page_set_remove(struct page_set *a, const struct page_set *b)
{
	if (!a->n || !b->n || b->r[0].start >= a->r[a->n - 1].end || b->r[b->n - 1].end <= a->r[0].start)
		return;
	if (b->n == 1) {
		page_set_remove_range(a, b->r[0].start, b->r[0].end);
		return;
	}
	struct page_set rest = PAGE_SET_INIT;

	page_set_minus(a, b, &rest);
	replace(a, &rest);
}

/* In place: called for one VMA of thousands, it costs what lies behind the range at most. */
void page_set_remove_range(struct page_set *a, uint64_t start, uint64_t end)
{
	size_t i = first_ending(a, start, true), j = i;

	if (start >= end || i == a->n || a->r[i].start >= end)
		return;
	if (a->r[i].start < start && a->r[i].end > end) { /* a hole in the middle of one */
		reserve(a, a->n + 1);
		memmove(a->r + i + 1, a->r + i, (a->n - i) * sizeof(*a->r));
		a->n++;
		a->r[i].end = start;
		a->r[i + 1].start = end;
		return;
	}
	if (a->r[i].start < start) {
		a->r[i].end = start;
		j = ++i;
	}
	while (j < a->n && a->r[j].end <= end)
		j++;
	if (j < a->n && a->r[j].start < end)
		a->r[j].start = end;
	memmove(a->r + i, a->r + j, (a->n - j) * sizeof(*a->r));
	a->n -= j - i;
}
