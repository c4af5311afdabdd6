/* SPDX-License-Identifier: Apache-2.0 */
/* Pages of an image that are not read in their turn: taken out of the stream, and read one by one later. */
#include <errno.h>
#include <string.h>

#include "base/util.h"
#include "stream/in.h"

static bool may_leave(const struct stream_in *s, const struct plan_piece *p, uint64_t id)
{
	const struct wire_run *r = &s->plan.runs[p->run].run;

	return p->kind == PIECE_RUN && r->space == SPACE_PROCESS && p->id == id && run_has_data(r->flags);
}

static int keep(struct piece_list *l, const struct plan_piece *p, uint64_t start, uint64_t end,
		struct error *e)
{
	struct plan_piece part = *p;

	part.addr = start;
	part.length = end - start;
	return start < end ? piece_add(l, &part, e) : 0;
}

/* The parts of @p that are not in @set. */
static int keep_rest(struct piece_list *l, const struct plan_piece *p, const struct page_set *set,
		     struct page_set *ret, struct error *e)
{
	struct page_range range = {p->addr, p->addr + p->length};
	const struct page_set whole = {&range, 1, 1};
	struct page_set gone = PAGE_SET_INIT;
	uint64_t at = p->addr;
	int rc = 0;

	page_set_and(&whole, set, &gone);
	for (size_t i = 0; i < gone.n && rc == 0; i++) {
		rc = keep(l, p, at, gone.r[i].start, e);
		at = gone.r[i].end;
	}
	if (rc == 0)
		rc = keep(l, p, at, range.end, e);
	page_set_merge(ret, &gone);
	page_set_deinit(&gone);
	return rc;
}

int stream_in_leave(struct stream_in *s, uint64_t pid, const struct page_set *set, struct page_set *ret,
		    struct error *e)
{
	struct piece_list rest = {0};
	int rc = 0;

	if (s->socket || !(s->flags & IMAGE_CHAIN) || s->next_piece)
		return error_say(e, EINVAL, "the order of pages of this stream is given");
	for (size_t i = 0; i < s->plan.n_pieces && rc == 0; i++) {
		const struct plan_piece *p = &s->plan.pieces[i];

		rc = may_leave(s, p, pid) ? keep_rest(&rest, p, set, ret, e) : piece_add(&rest, p, e);
	}
	if (rc < 0) {
		free(rest.v);
		return rc;
	}
	free(s->plan.pieces);
	s->plan.pieces = rest.v;
	s->plan.n_pieces = rest.n;
	s->plan.cap_pieces = rest.cap;
	return 0;
}

/* The first piece of process @pid that ends behind @addr, or the end of the list. By space, id, address. */
static size_t find(const struct stream_in *s, uint64_t pid, uint64_t addr)
{
	size_t lo = 0, hi = s->plan.n_pieces;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;
		const struct plan_piece *p = &s->plan.pieces[mid];
		uint32_t space = s->plan.runs[p->run].run.space;

		if (space > SPACE_PROCESS || p->id > pid || (p->id == pid && p->addr + p->length > addr))
			hi = mid;
		else
			lo = mid + 1;
	}
	return lo;
}

int stream_in_read(struct stream_in *s, uint64_t pid, uint64_t addr, uint64_t length, void *data,
		   struct error *e)
{
	uint8_t *to = data;
	uint64_t end = addr + length;

	memset(to, 0, length);
	for (size_t i = find(s, pid, addr); i < s->plan.n_pieces && length; i++) {
		const struct plan_piece *p = &s->plan.pieces[i];
		const struct plan_run *r = &s->plan.runs[p->run];
		uint64_t from = MAX(p->addr, addr), till = MIN(p->addr + p->length, end);
		const uint8_t *have = NULL;

		if (r->run.space != SPACE_PROCESS || p->id != pid || p->addr >= end)
			break;
		if (p->kind != PIECE_RUN || !run_has_data(r->run.flags))
			continue;
		s->next_piece = i;
		int rc = image_in_run_data(s, p->run, &have, e);

		if (rc < 0)
			return rc;
		memcpy(to + (from - addr), have + (from - r->run.addr), till - from);
	}
	return 0;
}
