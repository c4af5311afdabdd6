/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* The driver: starts a target that changes its memory in one way, follows it, and compares. */
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "ways.h"

struct stress_options {
	const char *backend, *backend_dir, *cgroup;
	unsigned rounds; /* in all */
	unsigned seed;
	bool verbose;
};

struct stress_result {
	enum { STRESS_EQUAL, STRESS_DIFFERS, STRESS_REFUSED, STRESS_SKIPPED, STRESS_FAILED } verdict;
	char text[600];
	unsigned rounds, compares;
	unsigned sure;      /* engine: of these with shared memory that was not compared by ferry */
	uint64_t compared;  /* pages */
	uint64_t different; /* pages, of all compares */
	uint64_t reported;  /* by the backend; engine: sent */
	uint64_t needless;  /* of these: equal to the copy */
	uint64_t untracked; /* backend: VMAs it could not track, at the last round */
};

/* A target and its helper, where the way has one. */
struct subject {
	const struct way_info *way;
	pid_t pid, helper;
	int mem, helper_mem;
	uint64_t steps[MAX_WRITERS + 1];
	char died[128];
};

/* 0; 1: skipped, with the reason in @text; -errno. */
int subject_start(struct subject *s, const struct way_info *way, const char *cgroup, char *text, size_t size);
void subject_end(struct subject *s);
/* Wait until every writer has done something since the last call. False: the target has ended, or hangs. */
bool subject_progress(struct subject *s);
/* The helper stops between two steps, or goes on. */
void subject_pause(struct subject *s, bool pause);

/* No limit while all of the frozen memory is read for the comparison: a program that does not run is killed,
 * as the kernel finds nothing of it to swap out. @cgroup may be NULL. */
void subject_relax(const char *cgroup, bool relax);

void stress_engine(const struct stress_options *o, const struct way_info *way, struct stress_result *r);
void stress_backend(const struct stress_options *o, const struct way_info *way, struct stress_result *r);
