/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What programs did to their memory, in the order in which they did it.
 *
 * A thread that forks, moves or unmaps memory has done so when it tells, and waits until that is read; other
 * threads go on.  So several events may wait at once, and the kernel gives the newest one first.  Where
 *threads deal with memory of their own the order does not matter, but for two things:
 *
 *	- an address that one thread has given up another one gets: the first event of the two frees the
 *place. Nothing can be moved to where, by the books, something still is: so the event that frees it is an
 *	  older one, and comes first.
 *	- a fork copies everything as it is in that moment: whether before or after another event, the child's
 *	  own memory tells: it is as before or as after.
 *
 * A move is told twice: by what was moved where, and, when that has been read, by the end of the old place,
 * which may be another's by then.  So the second is only looked for (missing.c, was_left); it does not come
 * where the mapping stays at the old place, too.
 *
 * Events that wait at once are read in one go.
 */
#include <unistd.h>

#include "base/util.h"
#include "engine/pager.h"

static bool is_registered(int uffd, uint64_t addr)
{
	for (int i = 0; i < 1000; i++) {
		int r = pager_reports(uffd, addr, addr + PAGE_SIZE_BYTES);

		if (r >= 0)
			return r;
		usleep(50);
	}
	return false;
}

static bool overlap(uint64_t a, uint64_t a_end, uint64_t b, uint64_t b_end)
{
	return MAX(a, b) < MIN(a_end, b_end);
}

/* What an event takes away from where it was. */
static bool frees(const struct uffd_msg *m, uint64_t *ret_start, uint64_t *ret_end)
{
	if (m->event == UFFD_EVENT_REMAP) {
		*ret_start = m->arg.remap.from;
		*ret_end = m->arg.remap.from + m->arg.remap.len;
		return true;
	}
	*ret_start = m->arg.remove.start;
	*ret_end = m->arg.remove.end;
	return m->event == UFFD_EVENT_UNMAP;
}

static void apply(struct pager *p, size_t space, const struct uffd_msg *msg)
{
	struct missing *m = &p->missing;
	int fd = m->spaces[space].fd;

	switch (msg->event) {
	case UFFD_EVENT_REMAP:
		missing_move(m, space, msg->arg.remap.from, msg->arg.remap.to, msg->arg.remap.len);
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
	switch (m->event) {
	case UFFD_EVENT_REMAP:
		return is_registered(uffd, m->arg.remap.to);
	case UFFD_EVENT_UNMAP:
		return !is_registered(uffd, m->arg.remove.start);
	default:
		return was_read_before;
	}
}

/* Must @msgs[i] wait for one of those behind it, which are not @done yet?  Those that free the place that it
 * moved to are older if something was there by the books, or is there now: were they newer, it would not be.
 */
static bool must_wait(const struct pager *p, size_t space, const struct uffd_msg *msgs, size_t n,
		      const bool *done, size_t i, bool *ret_looked)
{
	const struct missing_space *x = &p->missing.spaces[space];
	uint64_t to = msgs[i].arg.remap.to, end = to + msgs[i].arg.remap.len, start, stop;

	for (size_t k = i + 1; k < n && msgs[i].event == UFFD_EVENT_REMAP; k++) {
		if (done[k] || !frees(&msgs[k], &start, &stop) || !overlap(to, end, start, stop))
			continue;
		if (page_set_overlaps(&x->registered, MAX(to, start), MIN(end, stop)))
			return true;
		*ret_looked = true;
		if (is_registered(x->fd, MAX(to, start)))
			return true;
	}
	return false;
}

/* All but the forks. @fork: one that was copied by that fork, number @at; -1: the one that did it all. True:
 * the memory was looked at. */
static bool apply_all(struct pager *p, size_t space, const struct uffd_msg *msgs, size_t n, int fork,
		      size_t at)
{
	cleanup_free bool *done = xcalloc(n, sizeof(*done));
	bool progress = true, patient = true, looked = fork >= 0;

	for (size_t i = 0; i < n; i++)
		done[i] = msgs[i].event == UFFD_EVENT_FORK ||
			  (fork >= 0 && !is_before_fork(fork, &msgs[i], i < at));
	while (progress || patient) {
		patient = progress;
		progress = false;
		for (size_t i = 0; i < n; i++) {
			if (done[i] || (patient && must_wait(p, space, msgs, n, done, i, &looked)))
				continue;
			apply(p, space, &msgs[i]);
			done[i] = progress = true;
			break;
		}
	}
	return looked;
}

bool pager_apply(struct pager *p, size_t space, struct uffd_msg *msgs, size_t n)
{
	size_t forks = 0;
	bool looked = false;

	for (size_t i = 0; i < n; i++)
		forks += msgs[i].event == UFFD_EVENT_FORK;
	/* Each child from what was before all of it. */
	for (size_t i = 0; i < n && forks; i++) {
		if (msgs[i].event != UFFD_EVENT_FORK)
			continue;
		int fd = (int)msgs[i].arg.fork.ufd;
		size_t child = missing_fork(&p->missing, space, fd);

		if (forks < n)
			looked |= apply_all(p, child, msgs, n, fd, i);
		/* Whose moves they are is at home in the parent. */
		p->missing.spaces[child].n_left = 0;
	}
	looked |= apply_all(p, space, msgs, n, -1, 0);
	return looked;
}
