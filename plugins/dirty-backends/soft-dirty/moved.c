/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mremap(2) moves 2 MiB that lie alike in their huge page by moving the page of the page table as it is (1
 * GiB likewise), and does not mark them, as it does with what it moves entry by entry.  Memory that came so
 * to where other memory had been looks unchanged.
 *
 * So some pages of each 2 MiB are remembered with their frames, anew in every round: witnesses.  One that is
 * not marked and has the frame it had proves that the page of the page table is the same: an unmarked page
 * from elsewhere was there already when the witness was chosen, with another frame.  Where no witness says so
 * all of the 2 MiB are in doubt, also where nothing was and something is now.  Frames change for other
 * reasons too (compaction, swap): then pages are compared for nothing.  Where there are only pages in swap,
 * their places there must all be the same.
 *
 * Memory may also be moved away and back between two rounds.  That does no harm but to who reads it
 * meanwhile: so the witnesses are asked once more after each reading.
 *
 * Witnesses are pages of the process's own: file content and zero pages can be in two places.  Where pages
 * are merged (KSM), or frames cannot be seen, nothing is sure anyway.
 */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "soft_dirty.h"

#define CHUNK           (512 * PAGE)
#define PART            (CHUNK / 4) /* each has a witness */
#define WORDS           (CHUNK / PAGE)
#define WORD_PRESENT    (1ull << 63)
#define WORD_SWAPPED    (1ull << 62)
#define WORD_FILE       (1ull << 61)
#define WORD_SOFT_DIRTY (1ull << 55)
#define PLACE(word) \
	((word) & (WORD_PRESENT | WORD_SWAPPED | (WORD_SOFT_DIRTY - 1))) /* the frame, or where in swap */
#define MARKER(word) (((word)&WORD_SWAPPED) && ((word)&31) == 31)

struct look {
	struct moved *m;
	const struct dirty_vma *v;
	int pagemap;
	bool file, record;
	struct ranges *doubt; /* NULL: it is new, and nothing is known of it */
	uint64_t at, end;     /* a part without witnesses */
};

static uint64_t min(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static uint64_t chunk_end(uint64_t addr)
{
	return (addr / CHUNK + 1) * CHUNK;
}

static int keep(struct witnesses *w, uint64_t page, uint64_t place)
{
	while (w->n && w->v[w->n - 1].page >= page) /* asked for once more */
		w->n--;
	if (w->n == w->cap) {
		size_t cap = w->cap ? 2 * w->cap : 256;
		struct witness *v = realloc(w->v, cap * sizeof(*v));

		if (!v)
			return -ENOMEM;
		w->v = v;
		w->cap = cap;
	}
	w->v[w->n++] = (struct witness){page, place};
	return 0;
}

void moved_free(struct moved *m)
{
	free(m->old.v);
	free(m->now.v);
	*m = (struct moved){0};
}

void moved_begin(struct moved *m)
{
	m->now.n = 0;
}

void moved_end(struct moved *m)
{
	struct witnesses old = m->old;

	m->old = m->now;
	m->now = old;
}

static int read_words(int pagemap, uint64_t start, uint64_t end, uint64_t *words)
{
	size_t n = (end - start) / PAGE * 8;
	ssize_t got = pread(pagemap, words, n, (off_t)(start / PAGE * 8));

	return got == (ssize_t)n ? 0 : got < 0 ? -errno : -ESRCH;
}

/* A chunk, or what of it was asked for, of which no witness says that it is the same: in doubt if there is
 * something. */
static int choose(struct look *l, uint64_t start, uint64_t end)
{
	uint64_t words[WORDS], next = start;
	int r = read_words(l->pagemap, start, end, words);
	bool some = false;

	for (uint64_t at = start; at < end && r == 0; at += PAGE) {
		uint64_t word = words[(at - start) / PAGE];
		bool file = l->file && (word & WORD_FILE);

		if (file || !(word & (WORD_PRESENT | WORD_SWAPPED)) || MARKER(word))
			continue;
		some = true;
		if (!l->record || at < next || ((word & WORD_PRESENT) && zeros_is(at, word)))
			continue;
		r = keep(&l->m->now, at, PLACE(word));
		next = (at / PART + 1) * PART;
	}
	return r == 0 && some && l->doubt ? ranges_add(l->doubt, start, end, DIRTY_WRITTEN | DIRTY_UNSURE)
					  : r;
}

static int choose_each(void *ctx, const struct region *r)
{
	struct look *l = ctx;
	int e = 0;

	if (l->file && (r->categories & CAT_FILE) && !(r->categories & CAT_SWAPPED))
		return 0;
	if (l->at < r->start)
		l->at = r->start / CHUNK * CHUNK > l->at ? r->start / CHUNK * CHUNK : l->at;
	while (l->at < r->end && e == 0) {
		e = choose(l, l->at, min(chunk_end(l->at), l->end));
		l->at = min(chunk_end(l->at), l->end);
	}
	return e;
}

/* [start, end) has no witnesses. */
static int choose_all(struct look *l, uint64_t start, uint64_t end, bool scan)
{
	const struct scan s = {
		.start = start, .end = end, .anyof = CAT_POPULATED, .ret = CAT_POPULATED | CAT_FILE};
	int r = 0;

	l->at = start;
	l->end = end;
	if (scan && start < end)
		return pages_scan(l->pagemap, &s, choose_each, l);
	for (; start < end && r == 0; start = chunk_end(start))
		r = choose(l, start, min(chunk_end(start), end));
	return r;
}

/* The first of them from @addr on. */
static size_t find(const struct witnesses *w, uint64_t addr)
{
	size_t lo = 0, hi = w->n;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (w->v[mid].page < addr)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

/* 1: @n witnesses say that it is the same page of the page table. */
static int ask(int pagemap, const struct witness *w, size_t n)
{
	bool all = true;

	for (size_t i = 0; i < n; i++) {
		uint64_t word;
		int r = read_words(pagemap, w[i].page, w[i].page + PAGE, &word);

		if (r < 0)
			return r;
		bool same = !(word & WORD_SOFT_DIRTY) && PLACE(word) == w[i].place;

		if (same && (word & WORD_PRESENT))
			return 1;
		all &= same;
	}
	return all;
}

int moved_look(struct moved *m, int pagemap, const struct dirty_vma *v, bool scan, bool record,
	       struct ranges *doubt)
{
	struct look l = {.m = m,
			 .pagemap = pagemap,
			 .file = v->kind == DIRTY_VMA_PRIVATE_FILE,
			 .record = record,
			 .doubt = doubt};
	const struct witness *w = m->old.v;
	uint64_t at = v->start;
	int r = 0;

	for (size_t i = doubt ? find(&m->old, at) : m->old.n, n; i < m->old.n && w[i].page < v->end && r == 0;
	     i += n) {
		uint64_t start = w[i].page / CHUNK * CHUNK, end = min(chunk_end(start), v->end);

		if (start < at)
			start = at;
		for (n = 1; i + n < m->old.n && w[i + n].page < end;)
			n++;
		r = choose_all(&l, at, start, scan);
		if (r == 0)
			r = ask(pagemap, &w[i], n);
		if (r == 0)
			r = choose(&l, start, end);
		for (size_t k = 0; r > 0 && record && k < n; k++)
			r = keep(&m->now, w[i + k].page, w[i + k].place) < 0 ? -ENOMEM : 1;
		r = r > 0 ? 0 : r;
		at = end;
	}
	return r == 0 ? choose_all(&l, at, v->end, scan) : r;
}

/* Marked or not: while a page is there nobody else has its frame. */
static bool any_there(int pagemap, const struct witness *w, size_t n)
{
	uint64_t word;

	for (size_t i = 0; i < n; i++)
		if (read_words(pagemap, w[i].page, w[i].page + PAGE, &word) == 0 && PLACE(word) == w[i].place)
			return true;
	return false;
}

bool moved_still(const struct moved *m, int pagemap, uint64_t start, uint64_t end)
{
	const struct witness *w = m->old.v;
	size_t i = find(&m->old, start / CHUNK * CHUNK), n;

	for (; i < m->old.n && w[i].page / CHUNK * CHUNK < end; i += n) {
		for (n = 1; i + n < m->old.n && w[i + n].page / CHUNK == w[i].page / CHUNK;)
			n++;
		if (!any_there(pagemap, &w[i], n))
			return false;
	}
	return true;
}
