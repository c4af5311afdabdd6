/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* How long what is under way at the freeze is waited for. */
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "base/util.h"

struct patience {
	uint64_t until; /* ns, now_ns */
	bool last;
};

static inline struct patience patience_begin(void)
{
	return (struct patience){.until = now_ns() + 1000000000u};
}

/* After a look that found some: is that enough?  Else a pause, and another look is due. Also after the end of
 * the time there is one more: the machine may have stood still. */
static inline bool patience_ends(struct patience *p)
{
	if (p->last)
		return true;
	p->last = now_ns() > p->until;
	nanosleep(&(struct timespec){.tv_nsec = 200000}, NULL);
	return false;
}

/* Copies of descriptors with something that the running tree will have taken a moment later. */
struct awaited {
	int *fds;
	size_t n, cap;
};

static inline void awaited_add(struct awaited *a, int fd)
{
	if (a->n == a->cap) {
		a->cap = a->cap * 2 + 8;
		a->fds = xrealloc(a->fds, a->cap * sizeof(*a->fds));
	}
	a->fds[a->n++] = fd;
}

/* Until none of them is @busy, or it is time (now_ns), or somebody wants to abort. */
static inline void awaited_wait(const struct awaited *a, bool (*busy)(int fd), uint64_t until)
{
	size_t i = 0;

	while (i < a->n && now_ns() < until && !job_aborted())
		if (!busy(a->fds[i]))
			i++;
		else
			nanosleep(&(struct timespec){.tv_nsec = 200000}, NULL);
}

static inline void awaited_deinit(struct awaited *a)
{
	for (size_t i = 0; i < a->n; i++)
		close(a->fds[i]);
	free(a->fds);
	*a = (struct awaited){0};
}
