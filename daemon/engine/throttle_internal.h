/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Between throttle.c (which cgroup, and how much) and throttle_guard.c (what was before, and who sees to
 * that).
 */
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/error.h"
#include "engine/pulse.h"
#include "engine/throttle.h"

#define PERIOD_US 20000 /* short: the pauses are not to be felt as such */

struct place {
	pid_t pid;
	uint64_t start;
	char *dir; /* where it was */
};

struct throttle {
	bool v2;
	struct pulse *pulse; /* no CPU controller: it is frozen and let go in turns; else NULL */
	bool own;            /* a cgroup made by us, in which they are now */
	char *dir;           /* the one that is limited */
	char *before;        /* its cpu.max, if it is not ours */
	struct place *places;
	size_t n;
	double full;
	int pipe; /* its end is what the guard waits for */
	pid_t guard;
	bool undone; /* by the guard, which has ended */
};

int throttle_write(const char *dir, const char *file, const char *text);
int throttle_move(pid_t pid, const char *dir);
/* 0: none. */
int throttle_limit(const struct throttle *t, double cpus);
void throttle_undo(const struct throttle *t);
int throttle_post_guard(struct throttle *t, struct error *e);
/* Is it there still? */
bool throttle_is_guarded(struct throttle *t);
/* Everything is undone, by it or by us. */
void throttle_relieve_guard(struct throttle *t);
