/* SPDX-License-Identifier: Apache-2.0 */
/*
 * XXH3 with 128 bits: 16 bytes for each page, so 1/256 of the memory that is followed.  Two contents of equal
 * hash are as good as impossible by accident; a random seed keeps a program from making some on purpose,
 * which could only lose writes of its own.
 *
 * Pages are kept in blocks of 512 (2 MiB of memory), blocks in an open hash table by address: memory in use
 * is mostly dense.  An entry of two zeros is empty; a page with that hash is never known, which is harmless.
 */
#include "track/hashes.h"

#include <string.h>
#include <sys/random.h>
#include <xxhash.h>

#include "base/util.h"

#define BLOCK_PAGES 512u
#define BLOCK_BYTES ((uint64_t)BLOCK_PAGES * PAGE_SIZE_BYTES)

struct block {
	uint64_t start;
	XXH128_hash_t page[BLOCK_PAGES];
};

struct page_hashes {
	struct block **table;
	size_t size, n;     /* size is a power of two */
	struct block *last; /* runs are in order */
	uint64_t *places; /* by hash: where such a page was last; or elsewhere, or no more: to be looked at */
	size_t n_places;  /* a power of two */
};

/* One for all, so that what is known can be handed on. */
static uint64_t seed;

struct page_hashes *page_hashes_new(void)
{
	struct page_hashes *h = xcalloc(1, sizeof(*h));

	h->size = 64;
	h->table = xcalloc(h->size, sizeof(*h->table));
	if (!seed && getrandom(&seed, sizeof(seed), GRND_NONBLOCK) != (ssize_t)sizeof(seed))
		seed = now_ns();
	return h;
}

void page_hashes_free(struct page_hashes *h)
{
	if (!h)
		return;
	for (size_t i = 0; i < h->size; i++)
		free(h->table[i]);
	free(h->table);
	free(h->places);
	free(h);
}

static struct block **slot(const struct page_hashes *h, uint64_t start)
{
	size_t i = (start / BLOCK_BYTES * 0x9e3779b97f4a7c15ull) >> 20;

	while (h->table[i & (h->size - 1)] && h->table[i & (h->size - 1)]->start != start)
		i++;
	return &h->table[i & (h->size - 1)];
}

static void grow(struct page_hashes *h)
{
	struct block **old = h->table;
	size_t n = h->size;

	h->size *= 2;
	h->table = xcalloc(h->size, sizeof(*h->table));
	for (size_t i = 0; i < n; i++)
		if (old[i])
			*slot(h, old[i]->start) = old[i];
	free(old);
}

static struct block *find(struct page_hashes *h, uint64_t addr, bool create)
{
	uint64_t start = addr & ~(BLOCK_BYTES - 1);

	if (h->last && h->last->start == start)
		return h->last;
	struct block **s = slot(h, start);

	if (!*s && create) {
		if (h->n * 2 >= h->size) {
			grow(h);
			s = slot(h, start);
		}
		*s = xcalloc(1, sizeof(**s));
		(*s)->start = start;
		h->n++;
	}
	if (*s)
		h->last = *s;
	return *s;
}

bool page_hashes_update(struct page_hashes *h, uint64_t addr, const void *page)
{
	XXH128_hash_t *known = &find(h, addr, true)->page[addr / PAGE_SIZE_BYTES % BLOCK_PAGES];
	XXH128_hash_t now = XXH3_128bits_withSeed(page, PAGE_SIZE_BYTES, seed);
	bool same = (known->low64 || known->high64) && XXH128_isEqual(*known, now);

	*known = now;
	return same;
}

void page_hashes_copy(struct page_hashes *to, struct page_hashes *from, uint64_t start, uint64_t end)
{
	for (; to != from && start < end; start += PAGE_SIZE_BYTES) {
		const struct block *b = find(from, start, false);
		size_t i = start / PAGE_SIZE_BYTES % BLOCK_PAGES;

		if (b)
			find(to, start, true)->page[i] = b->page[i];
		else
			page_hashes_forget(to, start, start + PAGE_SIZE_BYTES);
	}
}

/* Blocks stay: what was used is mostly used again. */
void page_hashes_forget(struct page_hashes *h, uint64_t start, uint64_t end)
{
	while (start < end) {
		uint64_t next = MIN(end, (start & ~(BLOCK_BYTES - 1)) + BLOCK_BYTES);
		struct block *b = find(h, start, false);

		if (b)
			memset(&b->page[start / PAGE_SIZE_BYTES % BLOCK_PAGES], 0,
			       (next - start) / PAGE_SIZE_BYTES * sizeof(b->page[0]));
		start = next;
	}
}

static const XXH128_hash_t *known(struct page_hashes *h, uint64_t addr)
{
	const struct block *b = find(h, addr, false);
	const XXH128_hash_t *x = b ? &b->page[addr / PAGE_SIZE_BYTES % BLOCK_PAGES] : NULL;

	return x && (x->low64 || x->high64) ? x : NULL;
}

/* As many as there are pages; when it grows, it starts anew. */
static void make_places(struct page_hashes *h)
{
	size_t want = MAX(h->n_places, (size_t)4096);

	while (want < h->n * BLOCK_PAGES)
		want *= 2;
	if (want == h->n_places)
		return;
	free(h->places);
	h->places = xcalloc(want, sizeof(*h->places));
	h->n_places = want;
}

uint64_t page_hashes_twin(struct page_hashes *h, uint64_t addr)
{
	const XXH128_hash_t *mine = known(h, addr), *other;

	if (!mine)
		return 0;
	make_places(h);
	uint64_t *place = &h->places[mine->low64 & (h->n_places - 1)], at = *place;

	if (at && at != addr && (other = known(h, at)) && XXH128_isEqual(*other, *mine))
		return at;
	*place = addr;
	return 0;
}

size_t page_hashes_bytes(const struct page_hashes *h)
{
	return h->n * sizeof(struct block) + h->size * sizeof(h->table[0]) +
	       h->n_places * sizeof(h->places[0]);
}
