/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * A set of pages: sorted, disjoint, non-adjacent ranges of byte addresses [start, end), both page aligned.
 * Whole-set operations are linear merges, so that a round over 100,000 runs stays cheap.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct page_range {
	uint64_t start, end; /* bytes */
};

struct page_set {
	struct page_range *r;
	size_t n, cap;
};

#define PAGE_SET_INIT \
	{             \
		0     \
	}

void page_set_deinit(struct page_set *s);
void page_set_clear(struct page_set *s);
/* Append or insert [start, end). O(1) when called in ascending order, O(n) otherwise. */
void page_set_add(struct page_set *s, uint64_t start, uint64_t end);
bool page_set_has(const struct page_set *s, uint64_t addr);
bool page_set_overlaps(const struct page_set *s, uint64_t start, uint64_t end);
/* All of [start, end)? */
bool page_set_covers(const struct page_set *s, uint64_t start, uint64_t end);
uint64_t page_set_bytes(const struct page_set *s);
/* *ret (initialised, may not alias) = a OP b. */
void page_set_union(const struct page_set *a, const struct page_set *b, struct page_set *ret);
void page_set_minus(const struct page_set *a, const struct page_set *b, struct page_set *ret);
void page_set_and(const struct page_set *a, const struct page_set *b, struct page_set *ret);
/* a |= b, a -= b */
void page_set_merge(struct page_set *a, const struct page_set *b);
void page_set_remove(struct page_set *a, const struct page_set *b);
void page_set_remove_range(struct page_set *a, uint64_t start, uint64_t end);
