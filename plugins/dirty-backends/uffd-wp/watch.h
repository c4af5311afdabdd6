/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Frees targets that the kernel would keep in MADV_GUARD_INSTALL: see watch.c. */
#include "pages.h"

struct watched {
	pid_t pid;
	int uffd, pagemap; /* of the session, open until watch_end */
	/* the rest is watch.c's */
	struct watched *next;
	struct ranges added; /* in this round */
	struct ranges files; /* before; guarded by the lock */
	uint64_t ticks;      /* of system time when it was last searched */
	uint64_t not_before, eager_until;
};

/* pid, uffd and pagemap are set. 0 or -errno. */
int watch_begin(struct watched *w, char *why, size_t why_size);
/* Fine also without watch_begin. */
void watch_end(struct watched *w);
/* [start, end), file maps or shared memory, is about to be protected. It is watched from watch_commit on. */
int watch_add(struct watched *w, uint64_t start, uint64_t end);
int watch_commit(struct watched *w);
