/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sharing after fork, at the source.
 *
 * Why a page that lies in the same frame in two processes may go as one, while both run:  a frame is shared
 * by fork only, and neither has written the page since that fork, for a write moves it.  The fork was before
 * both were collected (and armed) in this round.  So what was sent of the holder, collected or clean in this
 * round, is what the heir had when it was looked at; what the heir writes after that is reported in the next
 * round, as is what the holder writes.  The one thing between is the holder's page being written after the
 * look and before it is read: hence a second look behind every reading.
 *
 * A version of a page that only heirs have among themselves is put into the holder as long as they are made.
 * It is read from one of them, between two looks at that one.
 */
#include "state/memory/sharing.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/util.h"
#include "procfs/pagemap.h"

#define CHUNK 4096 /* pages looked at together: soon enough for the holder's second look */
#define FRAME ((1ull << 55) - 1)

/* Where a page lies, as a number; 0: nowhere, not to be told, or in this process alone. */
static uint64_t place_of(uint64_t word)
{
	if ((word & WORD_PRESENT) && !(word & WORD_FILE) && !(word & WORD_EXCLUSIVE) && (word & FRAME))
		return WORD_PRESENT | (word & FRAME);
	if ((word & WORD_SWAPPED) && !(word & WORD_PRESENT) && !WORD_MARKER(word))
		return WORD_SWAPPED | (word & FRAME);
	return 0;
}

/* --- what there is --------------------------------------------------------------------------------- */

/* What goes of @mp in this round. */
static void going(const struct memory_process *mp, struct page_set *ret)
{
	for (size_t i = 0; i < mp->n_plan; i++)
		page_set_merge(ret, &mp->plan[i].go);
}

/* What the other side has of @mp as it is, as far as is known. */
static void clean(const struct memory_process *mp, bool final, struct page_set *ret)
{
	/* What is not tracked is only known when frozen: then it goes as a whole. */
	if (final)
		page_set_merge(ret, &mp->sent);
	else
		page_set_and(&mp->sent, &mp->armed, ret);
	for (size_t i = 0; i < mp->n_plan; i++) {
		page_set_remove(ret, &mp->plan[i].go);
		page_set_remove(ret, &mp->plan[i].drop);
	}
	page_set_remove(ret, &mp->unread);
	page_set_remove(ret, &mp->unmapped);
}

void share_holder_deinit(struct share_holder *h)
{
	page_set_deinit(&h->frames.pages);
	free(h->frames.words);
	page_set_deinit(&h->bad);
	page_set_deinit(&h->old);
	page_set_deinit(&h->sent);
	free(h->version);
}

void heir_deinit(struct heir *x)
{
	page_set_deinit(&x->equal);
	free(x->others);
}

/* --- looking --------------------------------------------------------------------------------------- */

static void add_other(struct heir *x, uint64_t addr, uint64_t frame)
{
	if (!(x->n_others & (x->n_others + 1)) || !x->others)
		x->others = xrealloc(x->others, (x->n_others * 2 + 2) * sizeof(*x->others));
	x->others[x->n_others++] = (struct other){addr, frame, NULL};
}

/* Pages [from, to) of @x, within a chunk that begins at @start with the holder's words before and after. */
static void compare(struct heir *x, uint64_t start, const uint64_t *before, const uint64_t *after,
		    uint64_t from, uint64_t to, uint64_t *words)
{
	size_t n = (to - from) / PAGE_SIZE_BYTES, skip = (from - start) / PAGE_SIZE_BYTES;

	for (size_t i = 0; i < n; i++) {
		uint64_t at = place_of(words[i]), addr = from + i * PAGE_SIZE_BYTES;

		if (!at)
			continue;
		if (at == place_of(before[skip + i]) && at == place_of(after[skip + i]))
			page_set_add(&x->equal, addr, addr + PAGE_SIZE_BYTES);
		else if (at & WORD_PRESENT)
			add_other(x, addr, at);
	}
}

struct look {
	struct share_holder *h;
	struct heir *const *heirs;
	struct page_set *candidates; /* of each heir */
	size_t n;
	uint64_t *after, *words;
};

/* One chunk: holder, heirs, holder. @ret: the holder's first words. */
static int look_chunk(struct look *l, uint64_t start, uint64_t end, uint64_t *ret)
{
	size_t n = (end - start) / PAGE_SIZE_BYTES;
	struct page_range range = {start, end};
	const struct page_set chunk = {&range, 1, 1};
	struct page_set mine = PAGE_SET_INIT;
	int r = pagemap_words(l->h->mp->pagemap_fd, start, n, ret);

	/* The heirs' words one behind the other; those of an heir that is gone say nothing. */
	for (size_t k = 0; k < l->n && r == 0; k++) {
		uint64_t *w = l->words + k * n;

		if (!page_set_overlaps(&l->candidates[k], start, end))
			continue;
		if (pagemap_words(l->heirs[k]->mp->pagemap_fd, start, n, w) < 0)
			memset(w, 0, n * sizeof(*w));
	}
	if (r == 0)
		r = pagemap_words(l->h->mp->pagemap_fd, start, n, l->after);
	for (size_t k = 0; k < l->n && r == 0; k++) {
		page_set_and(&l->candidates[k], &chunk, &mine);
		for (size_t i = 0; i < mine.n; i++)
			compare(l->heirs[k], start, ret, l->after, mine.r[i].start, mine.r[i].end,
				l->words + k * n + (mine.r[i].start - start) / PAGE_SIZE_BYTES);
	}
	page_set_deinit(&mine);
	return r;
}

static int look_all(struct look *l)
{
	struct frames *f = &l->h->frames;
	size_t at = 0;
	int r = 0;

	f->words = xcalloc(page_set_bytes(&f->pages) / PAGE_SIZE_BYTES + 1, sizeof(*f->words));
	for (size_t i = 0; i < f->pages.n && r == 0; i++)
		for (uint64_t a = f->pages.r[i].start; a < f->pages.r[i].end && r == 0;) {
			uint64_t end = MIN(a + CHUNK * PAGE_SIZE_BYTES, f->pages.r[i].end);

			r = job_aborted() ? -ECANCELED : look_chunk(l, a, end, f->words + at);
			at += (end - a) / PAGE_SIZE_BYTES;
			a = end;
		}
	return r;
}

static int by_frame(const void *a, const void *b)
{
	const struct other *x = a, *y = b;

	if (x->addr != y->addr)
		return x->addr < y->addr ? -1 : 1;
	return x->frame < y->frame ? -1 : x->frame > y->frame;
}

/* Only those count that two heirs have. */
static void keep_common_others(struct heir *const *heirs, size_t n)
{
	size_t sum = 0;

	for (size_t k = 0; k < n; k++)
		sum += heirs[k]->n_others;
	cleanup_free struct other *all = xcalloc(sum + 1, sizeof(*all));

	sum = 0;
	for (size_t k = 0; k < n; k++) {
		if (heirs[k]->n_others)
			memcpy(all + sum, heirs[k]->others, heirs[k]->n_others * sizeof(*all));
		sum += heirs[k]->n_others;
	}
	qsort(all, sum, sizeof(*all), by_frame);
	size_t common = 0;

	for (size_t i = 0; i < sum; i++)
		if (i + 1 < sum && !by_frame(&all[i], &all[i + 1]) &&
		    (!common || by_frame(&all[common - 1], &all[i])))
			all[common++] = all[i];
	for (size_t k = 0; k < n; k++) {
		size_t kept = 0;

		for (size_t i = 0; i < heirs[k]->n_others; i++)
			if (common && bsearch(&heirs[k]->others[i], all, common, sizeof(*all), by_frame))
				heirs[k]->others[kept++] = heirs[k]->others[i];
		heirs[k]->n_others = kept;
	}
}

int share_look(struct share_holder *h, struct heir *const *heirs, size_t n, struct error *e)
{
	cleanup_free struct page_set *candidates = xcalloc(n, sizeof(*candidates));
	cleanup_free uint64_t *after = xcalloc(CHUNK, sizeof(*after));
	cleanup_free uint64_t *words = xcalloc(n * CHUNK, sizeof(*words));
	struct look l = {h, heirs, candidates, n, after, words};

	for (size_t k = 0; k < n; k++) {
		struct page_set go = PAGE_SET_INIT;

		going(heirs[k]->mp, &go);
		page_set_and(&go, heirs[k]->common, &candidates[k]);
		page_set_merge(&h->frames.pages, &candidates[k]);
		page_set_deinit(&go);
	}
	int r = look_all(&l);

	for (size_t k = 0; k < n; k++) {
		page_set_deinit(&candidates[k]);
		if (r == 0)
			continue;
		/* The holder's memory is not there any more: then nobody shares it. */
		page_set_clear(&heirs[k]->equal);
		heirs[k]->n_others = 0;
	}
	keep_common_others(heirs, n);
	return r == -ECANCELED ? job_check_abort(e) : 0;
}

/* --- the holder's pages, before its turn ----------------------------------------------------------- */

/* Pages of @set were read: which of them lie elsewhere now than when they were looked at? */
static void look_again(struct share_holder *h, const struct page_set *set)
{
	cleanup_free uint64_t *now = xcalloc(CHUNK, sizeof(*now));
	size_t base = 0, i = 0;

	for (size_t k = 0; k < h->frames.pages.n; k++) {
		const struct page_range *r = &h->frames.pages.r[k];

		while (i < set->n && set->r[i].end <= r->start)
			i++;
		for (size_t j = i; j < set->n && set->r[j].start < r->end; j++) {
			uint64_t at = MAX(set->r[j].start, r->start), end = MIN(set->r[j].end, r->end);

			for (uint64_t to; at < end; at = to) {
				size_t n = MIN((end - at) / PAGE_SIZE_BYTES, (uint64_t)CHUNK);
				const uint64_t *then =
					h->frames.words + base + (at - r->start) / PAGE_SIZE_BYTES;

				to = at + n * PAGE_SIZE_BYTES;
				if (pagemap_words(h->mp->pagemap_fd, at, n, now) < 0)
					page_set_add(&h->bad, at, to);
				else
					for (size_t p = 0; p < n; p++)
						if (!place_of(now[p]) ||
						    place_of(now[p]) != place_of(then[p]))
							page_set_add(&h->bad, at + p * PAGE_SIZE_BYTES,
								     at + (p + 1) * PAGE_SIZE_BYTES);
			}
		}
		base += (r->end - r->start) / PAGE_SIZE_BYTES;
	}
}

/* The holder's own pages stand where older versions stood. */
static void take_back(struct share_holder *h, const struct page_set *set)
{
	struct memory_process *mp = h->mp;
	struct page_set mine = PAGE_SET_INIT;

	page_set_remove(&h->old, set);
	page_set_merge(&mp->sent, set);
	for (size_t i = 0; i < h->n_version; i++)
		if (page_set_has(set, h->version[i].addr))
			h->version[i].frame = 0;
	for (size_t i = 0; mp->hashes && i < set->n; i++)
		page_hashes_forget(mp->hashes, set->r[i].start, set->r[i].end);
	for (size_t i = 0; i < mp->n_plan; i++) {
		struct page_range range = {mp->plan[i].start, mp->plan[i].end};
		const struct page_set vma = {&range, 1, 1};

		page_set_and(set, &vma, &mine);
		page_set_merge(&mp->plan[i].go, &mine);
		page_set_remove(&mp->plan[i].drop, &mine);
	}
	page_set_deinit(&mine);
}

/* Pages of @x that are equal to its holder's: the holder's go if they have not gone yet. @ret: those that the
 * other side has then. */
static int send_equal(struct memory *m, struct heir *x, struct stream_out *out, bool final,
		      struct round_stats *st, struct page_set *ret, struct error *e)
{
	struct share_holder *h = x->holder;
	struct page_set go = PAGE_SET_INIT, now = PAGE_SET_INIT, there = PAGE_SET_INIT;

	page_set_and(&x->equal, &h->old, &now);
	if (now.n)
		take_back(h, &now);
	going(h->mp, &go);
	page_set_and(&x->equal, &go, &now);
	int r = memory_send_part(m, h->mp, &now, out, final, st, e);

	if (r >= 0 && now.n && !final)
		look_again(h, &now);
	page_set_merge(&h->sent, &now);
	clean(h->mp, final, &there);
	page_set_and(&x->equal, &there, ret);
	page_set_remove(ret, &h->bad);
	page_set_deinit(&go);
	page_set_deinit(&now);
	page_set_deinit(&there);
	return r;
}

/* What is remembered of @from holds for @x, whose pages are made of them over there. Else a backend that is
 * never sure would have them sent as content in the next round. */
static void hand_on_hashes(struct heir *x, const struct memory_process *from, uint64_t start, uint64_t end)
{
	if (!x->mp->hashes)
		return;
	if (from && from->hashes)
		page_hashes_copy(x->mp->hashes, from->hashes, start, end);
	else
		page_hashes_forget(x->mp->hashes, start, end);
}

/* --- older versions -------------------------------------------------------------------------------- */

static struct other *version_at(struct share_holder *h, uint64_t addr)
{
	size_t lo = 0, hi = h->n_version;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (h->version[mid].addr < addr)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo < h->n_version && h->version[lo].addr == addr ? &h->version[lo] : NULL;
}

/* @new (by address) over what there is. */
static void set_versions(struct share_holder *h, const struct other *new, size_t n)
{
	struct other *sum = xcalloc(h->n_version + n + 1, sizeof(*sum));
	size_t i = 0, j = 0, k = 0;

	while (i < h->n_version || j < n) {
		bool from_new = i == h->n_version || (j < n && new[j].addr <= h->version[i].addr);

		if (from_new && i < h->n_version && new[j].addr == h->version[i].addr)
			i++;
		sum[k++] = from_new ? new[j++] : h->version[i++];
	}
	free(h->version);
	h->version = sum;
	h->n_version = k;
}

/* Content of [o[0], o[n-1]] of @x into its holder: one piece without gaps. Frames that changed become 0. */
static int put_version(struct memory *m, struct heir *x, struct other *o, size_t n, struct stream_out *out,
		       struct round_stats *st, struct error *e)
{
	struct page_run run = {.space = SPACE_PROCESS,
			       .id = x->holder->mp->pid,
			       .addr = o[0].addr,
			       .length = n * PAGE_SIZE_BYTES};
	cleanup_free uint64_t *words = xcalloc(n, sizeof(*words));
	int r = pagemap_words(x->mp->pagemap_fd, run.addr, n, words);

	for (size_t i = 0; i < n; i++)
		if (r < 0 || place_of(words[i]) != o[i].frame)
			o[i].frame = 0;
	if (memory_read(x->mp, m->buffer, run.length, run.addr) != (ssize_t)run.length) {
		for (size_t i = 0; i < n; i++)
			o[i].frame = 0;
		return 0; /* nothing has gone; it goes as content of @x, or has ended */
	}
	r = pagemap_words(x->mp->pagemap_fd, run.addr, n, words);
	for (size_t i = 0; i < n; i++)
		if (r < 0 || place_of(words[i]) != o[i].frame)
			o[i].frame = 0;
	for (size_t i = 0; x->mp->hashes && i < n; i++) {
		page_hashes_update(x->mp->hashes, o[i].addr, m->buffer + i * PAGE_SIZE_BYTES);
		o[i].by = x->mp;
	}
	page_set_add(&x->holder->old, run.addr, run.addr + run.length);
	st->pages += n;
	st->bytes += run.length;
	return stream_put_pages(out, &run, m->buffer, e);
}

/* Versions that @x shares with other heirs: into the holder, unless they are there. @ret: those that are. */
static int send_others(struct memory *m, struct heir *x, struct stream_out *out, struct round_stats *st,
		       struct page_set *ret, struct error *e)
{
	struct share_holder *h = x->holder;
	size_t n = 0;
	int r = 0;

	for (size_t i = 0; i < x->n_others; i++) {
		const struct other *v = version_at(h, x->others[i].addr);

		if (v && v->frame == x->others[i].frame) {
			page_set_add(ret, v->addr, v->addr + PAGE_SIZE_BYTES);
			hand_on_hashes(x, v->by, v->addr, v->addr + PAGE_SIZE_BYTES);
		} else
			x->others[n++] = x->others[i];
	}
	x->n_others = n;
	for (size_t i = 0, j; i < n && r >= 0; i = j) {
		for (j = i + 1; j < n && x->others[j].addr == x->others[j - 1].addr + PAGE_SIZE_BYTES &&
				(j - i) * PAGE_SIZE_BYTES < STREAM_MAX_RUN;
		     j++)
			;
		r = put_version(m, x, x->others + i, j - i, out, st, e);
	}
	set_versions(h, x->others, n);
	for (size_t i = 0; i < n; i++)
		if (x->others[i].frame)
			page_set_add(ret, x->others[i].addr, x->others[i].addr + PAGE_SIZE_BYTES);
	return r;
}

int share_put_back(struct share_holder *h, struct error *e)
{
	struct memory_process *mp = h->mp;
	struct page_set mine = PAGE_SET_INIT, there = PAGE_SET_INIT, gone = PAGE_SET_INIT;
	int r = 0;

	if (!h->old.n)
		return 0;
	page_set_merge(&mp->sent, &h->old);
	for (size_t i = 0; mp->hashes && i < h->old.n; i++)
		page_hashes_forget(mp->hashes, h->old.r[i].start, h->old.r[i].end);
	for (size_t i = 0; i < mp->n_plan && r >= 0; i++) {
		struct page_plan *p = &mp->plan[i];
		struct page_range range = {p->start, p->end};
		const struct page_set vma = {&range, 1, 1};

		page_set_and(&h->old, &vma, &mine);
		page_set_clear(&there);
		for (size_t j = 0; j < mine.n && r >= 0; j++)
			r = pagemap_populated(mp->pagemap_fd, mine.r[j].start, mine.r[j].end, p->private_file,
					      &there);
		if (r < 0) {
			r = error_set(e, -r, "pid %d: scan 0x%llx-0x%llx", mp->pid,
				      (unsigned long long)p->start, (unsigned long long)p->end);
			break;
		}
		page_set_minus(&mine, &there, &gone);
		page_set_merge(&p->go, &there);
		page_set_remove(&p->drop, &there);
		page_set_merge(&p->drop, &gone);
		page_set_remove(&p->go, &gone);
	}
	page_set_deinit(&mine);
	page_set_deinit(&there);
	page_set_deinit(&gone);
	return r;
}

/* --- the heir -------------------------------------------------------------------------------------- */

int share_send(struct memory *m, struct heir *x, struct stream_out *out, bool final, struct round_stats *st,
	       struct error *e)
{
	struct page_set same = PAGE_SET_INIT, others = PAGE_SET_INIT;

	if (memory_keeps_hashes(m) && !x->mp->hashes)
		x->mp->hashes = page_hashes_new();
	int r = send_others(m, x, out, st, &others, e);

	if (r >= 0)
		r = send_equal(m, x, out, final, st, &same, e);
	for (size_t i = 0; i < same.n && r >= 0; i++)
		hand_on_hashes(x, x->holder->mp, same.r[i].start, same.r[i].end);
	page_set_merge(&same, &others);
	for (size_t i = 0; i < same.n && r >= 0; i++) {
		struct page_run run = {.space = SPACE_PROCESS,
				       .flags = PAGE_RUN_SAME,
				       .id = x->mp->pid,
				       .from = x->holder->mp->pid,
				       .addr = same.r[i].start,
				       .length = same.r[i].end - same.r[i].start};

		r = stream_put_pages(out, &run, NULL, e);
		st->shared += run.length / PAGE_SIZE_BYTES;
	}
	for (size_t i = 0; i < x->mp->n_plan && r >= 0; i++)
		page_set_remove(&x->mp->plan[i].go, &same);
	if (r >= 0)
		page_set_merge(&x->mp->sent, &same);
	page_set_deinit(&same);
	page_set_deinit(&others);
	return r < 0 ? r : 0;
}
