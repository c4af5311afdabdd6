/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* The process behind a session, and the answers that the backends of this folder give alike. */
#include "pages.h"

/* Where code and stack of the process lie: another exec, other places. */
struct identity {
	char text[96];
};

struct followed {
	pid_t pid;
	int pagemap;
	struct identity identity;
	struct ranges written, present, answer; /* of the collect at hand */
};

/* 0 or -errno; @f can be closed in either case. */
int followed_open(struct followed *f, pid_t pid, char *why, size_t why_size);
void followed_close(struct followed *f);
/* For begin: is it still the process, and the program, it was? 0, -ESRCH or another -errno. */
int followed_check(const struct followed *f, char *why, size_t why_size);
/* Is its memory still there? 0 or -ESRCH. To be asked after a scan: what is there now was there during it. */
int followed_alive(const struct followed *f, char *why, size_t why_size);
/* A collect begins: nothing is known. */
static inline void followed_clear(struct followed *f)
{
	f->written.n = f->present.n = f->answer.n = 0;
}
/* The end of collect: @answer, unless the memory has gone, or the scan failed (@r < 0). */
ssize_t followed_answer(const struct followed *f, const struct dirty_vma *v, int r,
			const struct ranges *answer, const struct dirty_range **ret_ranges, char *why,
			size_t why_size);
/* Open /proc/PID/@file: a descriptor, or -errno (-ESRCH: there is no such process). */
int followed_file(pid_t pid, const char *file, int flags, char *why, size_t why_size);
