/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* How long requests that are under way at the freeze are waited for. */
#include <stdbool.h>
#include <stdint.h>
#include <time.h>

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
