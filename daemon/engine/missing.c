/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/missing.h"

#include <string.h>

#include "base/util.h"
#include "state/memory/huge.h"

static void set(uint64_t *bits, uint64_t i)
{
	bits[i / 64] |= 1ull << (i % 64);
}

static void clear(uint64_t *bits, uint64_t i)
{
	bits[i / 64] &= ~(1ull << (i % 64));
}

static uint64_t *new_bits(uint64_t n)
{
	return xcalloc(MISSING_WORDS(n) + 1, sizeof(uint64_t));
}

static uint64_t pages(uint64_t start, uint64_t end)
{
	return (end - start) / PAGE_SIZE_BYTES;
}

void missing_deinit(struct missing *m)
{
	for (size_t i = 0; i < m->n_sources; i++) {
		struct missing_source *s = &m->sources[i];

		page_set_deinit(&s->base);
		free(s->first);
		free(s->todo);
		free(s->urgent);
		free(s->wanted);
	}
	for (size_t i = 0; i < m->n_spaces; i++) {
		free(m->spaces[i].r);
		free(m->spaces[i].bits);
		page_set_deinit(&m->spaces[i].registered);
		page_set_deinit(&m->spaces[i].huge);
		free(m->spaces[i].views);
	}
	free(m->sources);
	free(m->spaces);
	*m = (struct missing)MISSING_INIT;
}

size_t missing_add_source(struct missing *m, pid_t pid, const struct page_set *set)
{
	m->sources = xrealloc(m->sources, (m->n_sources + 1) * sizeof(*m->sources));
	struct missing_source *s = &m->sources[m->n_sources];

	*s = (struct missing_source){.pid = pid};
	page_set_merge(&s->base, set);
	s->first = xcalloc(s->base.n + 1, sizeof(*s->first));
	for (size_t i = 0; i < s->base.n; i++) {
		s->first[i] = s->n;
		s->n += pages(s->base.r[i].start, s->base.r[i].end);
	}
	s->first[s->base.n] = s->n;
	s->todo = new_bits(s->n);
	s->urgent = new_bits(s->n);
	s->wanted = new_bits(s->n);
	return m->n_sources++;
}

/* What a new space lacks is wanted. */
static void want(struct missing_source *s, const uint64_t *bits)
{
	for (uint64_t i = 0; i < MISSING_WORDS(s->n); i++) {
		uint64_t more = bits[i] & ~s->wanted[i];

		s->wanted[i] |= more;
		s->todo[i] |= more;
		s->left += (uint64_t)__builtin_popcountll(more);
	}
}

size_t missing_add_space_as(struct missing *m, size_t source, int fd, const struct missing_range *r, size_t n,
			    const uint64_t *bits, const struct page_set *registered)
{
	struct missing_source *s = &m->sources[source];

	m->spaces = xrealloc(m->spaces, (m->n_spaces + 1) * sizeof(*m->spaces));
	struct missing_space *x = &m->spaces[m->n_spaces];

	*x = (struct missing_space){.fd = fd, .object = MISSING_PROCESS, .source = source, .n = n, .cap = n};
	x->r = xmemdup(r, n * sizeof(*r));
	x->bits = new_bits(s->n);
	memcpy(x->bits, bits, MISSING_WORDS(s->n) * sizeof(*bits));
	page_set_merge(&x->registered, registered);
	for (size_t i = 0; i < n && !x->moved; i++)
		x->moved = missing_address(m, source, r[i].mark) != r[i].start;
	want(s, x->bits);
	return m->n_spaces++;
}

size_t missing_add_space(struct missing *m, size_t source, int fd, const struct page_set *registered)
{
	const struct missing_source *s = &m->sources[source];
	cleanup_free struct missing_range *r = xcalloc(s->base.n + 1, sizeof(*r));
	cleanup_free uint64_t *bits = new_bits(s->n);

	for (size_t i = 0; i < s->base.n; i++)
		r[i] = (struct missing_range){s->base.r[i].start, s->base.r[i].end, s->first[i]};
	for (uint64_t i = 0; i < s->n; i++)
		set(bits, i);
	return missing_add_space_as(m, source, fd, r, s->base.n, bits, registered);
}

size_t missing_add_object(struct missing *m, size_t source, uint64_t object, const struct missing_range *r,
			  size_t n, const uint64_t *bits)
{
	const struct page_set none = PAGE_SET_INIT;
	size_t space = missing_add_space_as(m, source, -1, r, n, bits, &none);

	m->spaces[space].object = (int64_t)object;
	return space;
}

void missing_set_huge(struct missing *m, size_t space, const struct page_set *set)
{
	page_set_clear(&m->spaces[space].huge);
	page_set_merge(&m->spaces[space].huge, set);
}

/* --- what programs do ------------------------------------------------------------------------------ */

size_t missing_fork(struct missing *m, size_t space, int fd)
{
	/* A copy: the array may move. */
	const struct missing_space x = m->spaces[space];
	size_t child = missing_add_space_as(m, x.source, fd, x.r, x.n, x.bits, &x.registered);

	for (size_t i = 0; i < x.n_views; i++)
		missing_add_view(m, child, &x.views[i]);
	return child;
}

static bool wanted_somewhere(const struct missing *m, size_t source, uint64_t mark)
{
	for (size_t i = 0; i < m->n_spaces; i++)
		if (m->spaces[i].source == source && missing_bit(m->spaces[i].bits, mark))
			return true;
	return false;
}

static void give_up(struct missing *m, struct missing_space *x, uint64_t mark)
{
	struct missing_source *s = &m->sources[x->source];

	if (!missing_bit(x->bits, mark))
		return;
	clear(x->bits, mark);
	if (wanted_somewhere(m, x->source, mark))
		return;
	clear(s->wanted, mark);
	clear(s->todo, mark);
	s->left--;
}

/* The first range that ends behind @addr. */
static size_t range_at(const struct missing_space *x, uint64_t addr)
{
	size_t lo = 0, hi = x->n;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (x->r[mid].end > addr)
			hi = mid;
		else
			lo = mid + 1;
	}
	return lo;
}

static void forget_huge(struct missing_space *x, uint64_t start, uint64_t end)
{
	struct page_range range = {start, end};
	const struct page_set gone = {&range, 1, 1};

	huge_forget(&x->huge, &gone);
}

/* Huge pages move as such if they are at such an address again. */
static void move_huge(struct missing_space *x, uint64_t from, uint64_t to, uint64_t length)
{
	uint64_t start = (from + HUGE_PAGE_BYTES - 1) & ~(HUGE_PAGE_BYTES - 1);
	uint64_t end = (from + length) & ~(HUGE_PAGE_BYTES - 1);
	struct page_set area = PAGE_SET_INIT, mine = PAGE_SET_INIT;

	if (start < end && (to - from) % HUGE_PAGE_BYTES == 0)
		page_set_add(&area, start, end);
	page_set_and(&x->huge, &area, &mine);
	forget_huge(x, from, from + length);
	forget_huge(x, to, to + length);
	for (size_t i = 0; i < mine.n; i++)
		page_set_add(&x->huge, mine.r[i].start - from + to, mine.r[i].end - from + to);
	page_set_deinit(&area);
	page_set_deinit(&mine);
}

void missing_drop(struct missing *m, size_t space, uint64_t start, uint64_t end)
{
	struct missing_space *x = &m->spaces[space];

	forget_huge(x, start, end);

	for (size_t i = range_at(x, start); i < x->n && x->r[i].start < end; i++) {
		uint64_t from = MAX(start, x->r[i].start), to = MIN(end, x->r[i].end);
		uint64_t mark = x->r[i].mark + pages(x->r[i].start, from);

		for (uint64_t k = 0; k < pages(from, to); k++)
			give_up(m, x, mark + k);
	}
}

/* --- views ------------------------------------------------------------------------------------------- */

void missing_add_view(struct missing *m, size_t space, const struct missing_view *v)
{
	struct missing_space *x = &m->spaces[space];

	x->views = xrealloc(x->views, (x->n_views + 1) * sizeof(*x->views));
	x->views[x->n_views++] = *v;
}

/* Where the parts that remain are put is of no matter. */
static void cut_views(struct missing_space *x, uint64_t start, uint64_t end)
{
	for (size_t i = x->n_views; i-- > 0;) {
		struct missing_view v = x->views[i];

		/* Empty ones, too: of a copy (mremap from length 0) only the beginning is known. */
		if (v.start >= end || MAX(v.end, v.start + 1) <= start)
			continue;
		x->views[i] = x->views[--x->n_views];
		x->views = xrealloc(x->views, (x->n_views + 3) * sizeof(*x->views));
		if (v.start < start)
			x->views[x->n_views++] = (struct missing_view){v.start, start, v.offset, v.object};
		if (v.end > end)
			x->views[x->n_views++] =
				(struct missing_view){end, v.end, v.offset + (end - v.start), v.object};
	}
}

struct missing_view *missing_view_near(const struct missing *m, size_t space, uint64_t addr)
{
	const struct missing_space *x = &m->spaces[space];
	struct missing_view *best = NULL;

	for (size_t i = 0; i < x->n_views; i++)
		if (x->views[i].start <= addr && (!best || x->views[i].start > best->start))
			best = &x->views[i];
	return best;
}

void missing_view_reaches(struct missing *m, size_t space, struct missing_view *v, uint64_t end)
{
	v->end = MAX(v->end, end);
	page_set_add(&m->spaces[space].registered, v->start, v->end);
}

/* An event of a move is of one mapping: what its beginning leads to all of it does, however long it had
 * become.  A copy (@length 0) is as long as the caller of mremap wished. */
static bool moves_view(const struct missing *m, size_t space, uint64_t from, uint64_t to, uint64_t length,
		       struct missing_view *ret)
{
	const struct missing_view *v = missing_view_near(m, space, from);

	if (!v || (from >= v->end && from != v->start))
		return false;
	*ret = (struct missing_view){to, to + length, v->offset + (from - v->start), v->object};
	return true;
}

static void move_views(struct missing *m, size_t space, uint64_t from, uint64_t to, uint64_t length,
		       bool stays)
{
	struct missing_space *x = &m->spaces[space];
	struct missing_view moved;
	bool known = moves_view(m, space, from, to, length, &moved);

	if (length && !stays)
		cut_views(x, from, from + length);
	if (length)
		cut_views(x, to, to + length);
	if (known)
		missing_add_view(m, space, &moved);
}

bool missing_find_shared(const struct missing *m, uint64_t object, uint64_t offset, size_t *ret_space,
			 uint64_t *ret_mark)
{
	for (size_t i = 0; i < m->n_spaces; i++)
		if (m->spaces[i].object == (int64_t)object && missing_find(m, i, offset, ret_mark)) {
			*ret_space = i;
			return true;
		}
	return false;
}

uint64_t missing_none_in(const struct missing *m, uint64_t object, uint64_t offset, uint64_t max)
{
	uint64_t n = PAGE_SIZE_BYTES, mark;
	size_t space;

	while (n < max && !missing_find_shared(m, object, offset + n, &space, &mark))
		n += PAGE_SIZE_BYTES;
	return n;
}

/* ----------------------------------------------------------------------------------------------------- */

void missing_unmap(struct missing *m, size_t space, uint64_t start, uint64_t end)
{
	missing_drop(m, space, start, end);
	page_set_remove_range(&m->spaces[space].registered, start, end);
	cut_views(&m->spaces[space], start, end);
}

static void insert(struct missing_space *x, struct missing_range r)
{
	size_t at = range_at(x, r.start);

	if (x->n == x->cap) {
		x->cap = x->cap * 2 + 16;
		x->r = xrealloc(x->r, x->cap * sizeof(*x->r));
	}
	memmove(&x->r[at + 1], &x->r[at], (x->n - at) * sizeof(*x->r));
	x->r[at] = r;
	x->n++;
}

/* Take [start, end) out of the ranges, whose bits stay. The pieces go to @ret (room for all ranges). */
static size_t cut_out(struct missing_space *x, uint64_t start, uint64_t end, struct missing_range *ret)
{
	size_t i = range_at(x, start), n = 0;

	while (i < x->n && x->r[i].start < end) {
		struct missing_range old = x->r[i];
		uint64_t from = MAX(start, old.start), to = MIN(end, old.end);

		ret[n++] = (struct missing_range){from, to, old.mark + pages(old.start, from)};
		memmove(&x->r[i], &x->r[i + 1], (x->n - i - 1) * sizeof(*x->r));
		x->n--;
		if (old.start < from) {
			insert(x, (struct missing_range){old.start, from, old.mark});
			i++;
		}
		if (to < old.end)
			insert(x, (struct missing_range){to, old.end, old.mark + pages(old.start, to)});
	}
	return n;
}

/* Of memory that the books do not know, where it is now is not known either. */
static void move_registered(struct missing *m, size_t space, uint64_t from, uint64_t to, uint64_t length)
{
	struct missing_space *x = &m->spaces[space];
	struct page_set here = PAGE_SET_INIT, part = PAGE_SET_INIT;
	struct missing_view ignored;

	page_set_add(&here, from, from + length);
	page_set_and(&x->registered, &here, &part);
	if (moves_view(m, space, from, to, length, &ignored)) {
		page_set_clear(&part);
		page_set_merge(&part, &here);
	}
	page_set_remove(&x->registered, &here);
	page_set_remove_range(&x->registered, to, to + length);
	for (size_t i = 0; i < part.n; i++)
		page_set_add(&x->registered, part.r[i].start - from + to, part.r[i].end - from + to);
	page_set_deinit(&here);
	page_set_deinit(&part);
}

void missing_move(struct missing *m, size_t space, uint64_t from, uint64_t to, uint64_t length, bool stays)
{
	struct missing_space *x = &m->spaces[space];

	if (!length) {
		move_views(m, space, from, to, 0, true);
		return;
	}
	cleanup_free struct missing_range *moved = xcalloc(x->n + 1, sizeof(*moved)),
					  *gone = xcalloc(x->n + 1, sizeof(*gone));
	size_t n = cut_out(x, from, from + length, moved);

	/* What was mapped there before is gone. */
	missing_drop(m, space, to, to + length);
	move_huge(x, from, to, length);
	move_registered(m, space, from, to, length);
	move_views(m, space, from, to, length, stays);
	cut_out(x, to, to + length, gone);
	for (size_t i = 0; i < n; i++)
		insert(x, (struct missing_range){moved[i].start - from + to, moved[i].end - from + to,
						 moved[i].mark});
	x->moved = true;
}

void missing_end(struct missing *m, size_t space)
{
	struct missing_space *x = &m->spaces[space];
	uint64_t n = m->sources[x->source].n;

	x->ended = true;
	for (uint64_t i = 0; i < n; i++)
		if (!x->bits[i / 64])
			i |= 63;
		else
			give_up(m, x, i);
}

/* --- what is fetched ------------------------------------------------------------------------------- */

bool missing_find(const struct missing *m, size_t space, uint64_t addr, uint64_t *ret_mark)
{
	const struct missing_space *x = &m->spaces[space];
	size_t i = range_at(x, addr);

	if (i == x->n || x->r[i].start > addr)
		return false;
	*ret_mark = x->r[i].mark + pages(x->r[i].start, addr);
	return missing_bit(x->bits, *ret_mark);
}

bool missing_where(const struct missing *m, size_t space, uint64_t mark, uint64_t *ret_addr)
{
	const struct missing_space *x = &m->spaces[space];

	if (!missing_bit(x->bits, mark))
		return false;
	if (!x->moved) {
		*ret_addr = missing_address(m, x->source, mark);
		return true;
	}
	if (x->object != MISSING_PROCESS) {
		size_t lo = 0, hi = x->n;

		while (hi - lo > 1) {
			size_t mid = lo + (hi - lo) / 2;

			if (x->r[mid].mark <= mark)
				lo = mid;
			else
				hi = mid;
		}
		*ret_addr = x->r[lo].start + (mark - x->r[lo].mark) * PAGE_SIZE_BYTES;
		return true;
	}
	for (size_t i = 0; i < x->n; i++)
		if (x->r[i].mark <= mark && mark - x->r[i].mark < pages(x->r[i].start, x->r[i].end)) {
			*ret_addr = x->r[i].start + (mark - x->r[i].mark) * PAGE_SIZE_BYTES;
			return true;
		}
	return false;
}

static size_t base_of(const struct missing_source *s, uint64_t mark)
{
	size_t lo = 0, hi = s->base.n;

	while (hi - lo > 1) {
		size_t mid = lo + (hi - lo) / 2;

		if (s->first[mid] <= mark)
			lo = mid;
		else
			hi = mid;
	}
	return lo;
}

uint64_t missing_address(const struct missing *m, size_t source, uint64_t mark)
{
	const struct missing_source *s = &m->sources[source];
	size_t i = base_of(s, mark);

	return s->base.r[i].start + (mark - s->first[i]) * PAGE_SIZE_BYTES;
}

bool missing_mark(const struct missing *m, size_t source, uint64_t addr, uint64_t *ret_mark)
{
	const struct missing_source *s = &m->sources[source];
	size_t lo = 0, hi = s->base.n;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (s->base.r[mid].end > addr)
			hi = mid;
		else
			lo = mid + 1;
	}
	if (lo == s->base.n || s->base.r[lo].start > addr)
		return false;
	*ret_mark = s->first[lo] + pages(s->base.r[lo].start, addr);
	return true;
}

/* The set bit nearest to @from. */
static bool nearest(const uint64_t *bits, uint64_t n, uint64_t from, uint64_t *ret)
{
	uint64_t words = MISSING_WORDS(n), w = from / 64;

	for (uint64_t d = 0; d <= words; d++) {
		uint64_t up = w + d < words ? bits[w + d] : 0, down = d && d <= w ? bits[w - d] : 0;

		if (!d) { /* both ways in the word itself: what follows is read ahead, so it comes first */
			uint64_t after = up & (~0ull << (from % 64));

			up = after ? after : up;
		}
		if (up) {
			*ret = (w + d) * 64 + (uint64_t)__builtin_ctzll(up);
			return true;
		}
		if (down) {
			*ret = (w - d) * 64 + 63 - (uint64_t)__builtin_clzll(down);
			return true;
		}
	}
	return false;
}

size_t missing_next(struct missing *m, size_t source, size_t max, uint64_t *ret_mark)
{
	struct missing_source *s = &m->sources[source];
	uint64_t mark;
	size_t n = 0;

	if (!s->left || !nearest(s->todo, s->n, s->hint, &mark))
		return 0;
	uint64_t end = s->first[base_of(s, mark) + 1];

	*ret_mark = mark;
	for (; n < max && mark < end && missing_bit(s->todo, mark); n++)
		clear(s->todo, mark++);
	return n;
}

bool missing_urge(struct missing *m, size_t source, uint64_t mark)
{
	struct missing_source *s = &m->sources[source];

	s->hint = mark;
	clear(s->todo, mark);
	if (missing_bit(s->urgent, mark))
		return false;
	set(s->urgent, mark);
	return true;
}

void missing_calm(struct missing *m, size_t source, uint64_t mark)
{
	struct missing_source *s = &m->sources[source];

	clear(s->urgent, mark);
	if (missing_bit(s->wanted, mark))
		set(s->todo, mark);
}

void missing_arrived(struct missing *m, size_t source, uint64_t mark)
{
	struct missing_source *s = &m->sources[source];

	clear(s->todo, mark);
	if (!missing_bit(s->wanted, mark))
		return;
	for (size_t i = 0; i < m->n_spaces; i++)
		if (m->spaces[i].source == source)
			clear(m->spaces[i].bits, mark);
	clear(s->wanted, mark);
	s->left--;
}

void missing_ask_again(struct missing *m)
{
	for (size_t i = 0; i < m->n_sources; i++) {
		struct missing_source *s = &m->sources[i];

		memset(s->urgent, 0, MISSING_WORDS(s->n) * sizeof(uint64_t));
		memcpy(s->todo, s->wanted, MISSING_WORDS(s->n) * sizeof(uint64_t));
	}
}

uint64_t missing_left(const struct missing *m)
{
	uint64_t n = 0;

	for (size_t i = 0; i < m->n_sources; i++)
		n += m->sources[i].left;
	return n;
}
