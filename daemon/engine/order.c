/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A place is filled and freed in turn: what is moved to where there is something must wait for what frees it,
 * and what frees a place where there is nothing for what fills it.  What is there at a moment is counted from
 * the one at which it is known: before, or after, all of it.
 */
#include "engine/order.h"

#include "base/util.h"

struct state {
	const struct order_event *ev;
	size_t n;
	bool *done;
	const struct order_memory *memory;
};

bool order_frees(const struct uffd_msg *m, bool stays, uint64_t *ret_start, uint64_t *ret_end)
{
	if (m->event == UFFD_EVENT_REMAP) {
		*ret_start = m->arg.remap.from;
		*ret_end = m->arg.remap.from + m->arg.remap.len;
		return !stays && m->arg.remap.len;
	}
	*ret_start = m->arg.remove.start;
	*ret_end = m->arg.remove.end;
	return m->event == UFFD_EVENT_UNMAP;
}

bool order_fills(const struct uffd_msg *m, uint64_t *ret_start, uint64_t *ret_end)
{
	*ret_start = m->arg.remap.to;
	*ret_end = m->arg.remap.to + m->arg.remap.len;
	return m->event == UFFD_EVENT_REMAP && m->arg.remap.len;
}

/* What an event is about where it is: what it takes, copies or empties. */
static void subject(const struct uffd_msg *m, uint64_t *ret_start, uint64_t *ret_end)
{
	(void)order_frees(m, false, ret_start, ret_end);
	*ret_end = MAX(*ret_end, *ret_start + 1);
}

void order_pair(struct order_event *ev, size_t n, size_t first)
{
	uint64_t start, end;

	for (size_t i = 0; i < first; i++) {
		if (ev[i].out || !order_fills(&ev[i].msg, &start, &end))
			continue;
		(void)order_frees(&ev[i].msg, false, &start, &end);
		ev[i].stays = true;
		for (size_t k = i + 1; k < n && ev[i].stays; k++)
			if (!ev[k].out && ev[k].msg.event == UFFD_EVENT_UNMAP &&
			    ev[k].msg.arg.remove.start == start && ev[k].msg.arg.remove.end == end) {
				ev[k].out = true;
				ev[i].stays = false;
			}
	}
}

static bool covers(uint64_t start, uint64_t end, uint64_t addr)
{
	return start <= addr && addr < end;
}

/* At this moment, by what has been put in order. */
static bool is_there(struct state *s, uint64_t addr)
{
	int there = s->memory->is_there(s->memory->ctx, addr);
	uint64_t start, end;

	for (size_t i = 0; i < s->n; i++) {
		if (s->ev[i].out || s->done[i] == s->memory->after)
			continue;
		int fills = order_fills(&s->ev[i].msg, &start, &end) && covers(start, end, addr);
		int frees =
			order_frees(&s->ev[i].msg, s->ev[i].stays, &start, &end) && covers(start, end, addr);

		there += s->memory->after ? frees - fills : fills - frees;
	}
	return there > 0;
}

static bool must_wait(struct state *s, size_t i)
{
	const struct uffd_msg *m = &s->ev[i].msg;
	uint64_t to, to_end, at, at_end, start, end;
	bool fills = order_fills(m, &to, &to_end);

	subject(m, &at, &at_end);
	for (size_t k = 0; k < s->n; k++) {
		const struct order_event *other = &s->ev[k];

		if (k == i || s->done[k] || other->out)
			continue;
		if (fills && order_frees(&other->msg, other->stays, &start, &end) &&
		    MAX(to, start) < MIN(to_end, end) && is_there(s, MAX(to, start)))
			return true;
		if (order_fills(&other->msg, &start, &end) && MAX(at, start) < MIN(at_end, end) &&
		    !is_there(s, MAX(at, start)))
			return true;
	}
	return false;
}

size_t order_events(const struct order_event *ev, size_t n, const struct order_memory *memory, size_t *ret)
{
	cleanup_free bool *done = xcalloc(n + 1, sizeof(*done));
	struct state s = {.ev = ev, .n = n, .done = done, .memory = memory};
	size_t k = 0, total = 0;

	for (size_t i = 0; i < n; i++)
		total += !ev[i].out;
	while (k < total) {
		size_t first = n, next = n;

		for (size_t i = 0; i < n && next == n; i++) {
			if (done[i] || ev[i].out)
				continue;
			first = MIN(first, i);
			if (!must_wait(&s, i))
				next = i;
		}
		/* They wait for each other: memory grew there, of which nothing is told. */
		next = next == n ? first : next;
		done[next] = true;
		ret[k++] = next;
	}
	return k;
}
