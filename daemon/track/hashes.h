/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * What was copied last, page by page, as a hash: so that a page that is only suspected to have changed is not
 * sent for nothing.  The hash is taken from the very bytes that are sent, never from a look before: a page
 * that changes between a look and the copy, and back again, would else be taken for known.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct page_hashes;

struct page_hashes *page_hashes_new(void);
void page_hashes_free(struct page_hashes *h); /* NULL is fine */
/* Remember @page (4096 bytes) as the content at @addr. True: it is what was remembered there before. */
bool page_hashes_update(struct page_hashes *h, uint64_t addr, const void *page);
/* What is remembered of [start, end) in @from is true in @to, too (a page that is not known there becomes
 * unknown here). Both may be the same. */
void page_hashes_copy(struct page_hashes *to, struct page_hashes *from, uint64_t start, uint64_t end);
/* Nothing is known of [start, end) any more. */
void page_hashes_forget(struct page_hashes *h, uint64_t start, uint64_t end);
/* Another page that is known to have the content that is known of @addr: its address, or 0. @addr itself will
 * be found from then on. Some are missed: what does not find its place pushes out another one. */
uint64_t page_hashes_twin(struct page_hashes *h, uint64_t addr);
/* Memory they take. */
size_t page_hashes_bytes(const struct page_hashes *h);
