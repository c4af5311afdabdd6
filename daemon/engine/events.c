/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What programs did to their memory, into the books, in the order in which they did it (order.c).
 *
 * A fork copies everything as it is in that moment. Which events came before it the child's own memory tells:
 * it is as before or as after.
 */
#include <errno.h>
#include <unistd.h>

#include "base/util.h"
#include "engine/order.h"
#include "engine/pager.h"

#define TRIES 20

/* -EAGAIN: it does something itself. */
static int is_registered(int uffd, uint64_t addr)
{
	int r = -EAGAIN;

	for (int i = 0; i < TRIES && r == -EAGAIN; i++) {
		if (i)
			usleep(50);
		r = pager_reports(uffd, addr, addr + PAGE_SIZE_BYTES);
	}
	return r;
}

struct side {
	const struct missing_space *space;
	bool looked, unsure;
};

static int is_there(void *ctx, uint64_t addr)
{
	struct side *s = ctx;
	int r = is_registered(s->space->fd, addr);

	s->looked = true;
	s->unsure |= r < 0;
	return r > 0;
}

static int is_there_by_the_books(void *ctx, uint64_t addr)
{
	const struct side *s = ctx;

	return page_set_overlaps(&s->space->registered, addr, addr + PAGE_SIZE_BYTES);
}

static void apply(struct pager *p, size_t space, const struct order_event *ev)
{
	struct missing *m = &p->missing;
	const struct uffd_msg *msg = &ev->msg;
	int fd = m->spaces[space].fd;

	switch (msg->event) {
	case UFFD_EVENT_REMAP:
		missing_move(m, space, msg->arg.remap.from, msg->arg.remap.to, msg->arg.remap.len, ev->stays);
		pager_wake(fd, msg->arg.remap.from, msg->arg.remap.len);
		/* Threads that were quicker than the news */
		pager_wake(fd, msg->arg.remap.to, msg->arg.remap.len);
		break;
	case UFFD_EVENT_UNMAP:
		missing_unmap(m, space, msg->arg.remove.start, msg->arg.remove.end);
		pager_wake(fd, msg->arg.remove.start, msg->arg.remove.end - msg->arg.remove.start);
		break;
	case UFFD_EVENT_REMOVE:
		missing_drop(m, space, msg->arg.remove.start, msg->arg.remove.end);
		pager_wake(fd, msg->arg.remove.start, msg->arg.remove.end - msg->arg.remove.start);
		break;
	default:
		break;
	}
}

/* Was the memory behind @uffd, copied by a fork, copied after @m had been done? A page that was given back is
 * missing in either case, and a program that does so while it forks cannot know which. */
static bool is_before_fork(int uffd, const struct uffd_msg *m, bool was_read_before)
{
	int r = -EAGAIN;

	if (m->event == UFFD_EVENT_REMAP)
		r = is_registered(uffd, m->arg.remap.to);
	else if (m->event == UFFD_EVENT_UNMAP)
		r = is_registered(uffd, m->arg.remove.start);
	if (r < 0)
		return was_read_before;
	return m->event == UFFD_EVENT_REMAP ? r : !r;
}

/* What brought something to a place from where it was taken before the fork came before the fork, too. */
static void add_what_led_there(const struct order_event *ev, size_t n, bool *before)
{
	uint64_t start, end, to, to_end;
	bool more = true;

	while (more) {
		more = false;
		for (size_t i = 0; i < n; i++) {
			if (before[i] || !order_fills(&ev[i].msg, &to, &to_end))
				continue;
			for (size_t k = 0; k < n && !before[i]; k++)
				before[i] = before[k] && order_frees(&ev[k].msg, ev[k].stays, &start, &end) &&
					    MAX(to, start) < MIN(to_end, end);
			more |= before[i];
		}
	}
}

/* What is not set out, in order; -EAGAIN: more has happened meanwhile. @ret: room for @n. */
static int put_in_order(struct pager *p, size_t space, const struct order_event *ev, size_t n, bool settled,
			size_t *ret, size_t *ret_n, bool *ret_looked)
{
	struct side side = {.space = &p->missing.spaces[space]};
	const struct order_memory memory = {settled ? is_there : is_there_by_the_books, &side, settled};

	*ret_n = order_events(ev, n, &memory, ret);
	*ret_looked |= side.looked;
	return side.unsure ? -EAGAIN : 0;
}

static void apply_all(struct pager *p, size_t space, const struct order_event *ev, const size_t *order,
		      size_t n)
{
	for (size_t i = 0; i < n; i++)
		apply(p, space, &ev[order[i]]);
}

/* Event @at is a fork: its child's space, made of what was before all of them, and of those that were done
 * before the fork. */
static void apply_to_child(struct pager *p, size_t space, const struct order_event *ev, size_t n, size_t at,
			   bool *ret_looked)
{
	int fd = (int)ev[at].msg.arg.fork.ufd;
	size_t child = missing_fork(&p->missing, space, fd), k;
	cleanup_free bool *before = xcalloc(n, sizeof(*before));
	cleanup_free size_t *order = xcalloc(n, sizeof(*order));
	cleanup_free struct order_event *mine = xmemdup(ev, n * sizeof(*ev));

	for (size_t i = 0; i < n; i++) {
		before[i] = !ev[i].out && is_before_fork(fd, &ev[i].msg, i < at);
		*ret_looked |= !ev[i].out;
	}
	add_what_led_there(ev, n, before);
	for (size_t i = 0; i < n; i++)
		mine[i].out = !before[i];
	(void)put_in_order(p, child, mine, n, true, order, &k, ret_looked);
	apply_all(p, child, mine, order, k);
}

int pager_apply(struct pager *p, size_t space, struct uffd_msg *msgs, size_t *n, enum pager_known known,
		bool *ret_looked)
{
	cleanup_free struct order_event *ev = xcalloc(*n, sizeof(*ev));
	cleanup_free size_t *order = xcalloc(*n, sizeof(*order));
	size_t k, now = known == PAGER_SOME ? (*n + 1) / 2 : *n, rest = 0;

	*ret_looked = false;
	for (size_t i = 0; i < *n; i++)
		ev[i] = (struct order_event){.msg = msgs[i], .out = msgs[i].event == UFFD_EVENT_FORK};
	order_pair(ev, *n, now);
	int r = put_in_order(p, space, ev, now, known == PAGER_SETTLED, order, &k, ret_looked);

	if (r < 0)
		return r;
	for (size_t i = 0; i < now; i++)
		if (msgs[i].event == UFFD_EVENT_FORK)
			apply_to_child(p, space, ev, now, i, ret_looked);
	apply_all(p, space, ev, order, k);
	for (size_t i = now; i < *n; i++)
		if (!ev[i].out || msgs[i].event == UFFD_EVENT_FORK)
			msgs[rest++] = msgs[i];
	*n = rest;
	return 0;
}
