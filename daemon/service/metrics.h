/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* What ferryd counts, and how it is shown: docs/metrics.md.  Numbers in, text out. */
#include <jansson.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "service/status.h"

enum metrics_verb {
	METRICS_MIGRATE,
	METRICS_RECEIVE,
	METRICS_DUMP,
	METRICS_PREDUMP,
	METRICS_OTHER,
	METRICS_VERBS,
};

enum metrics_outcome {
	OUTCOME_DONE,
	OUTCOME_FAILED,
	OUTCOME_CANCELLED,
	OUTCOME_LOST,
	OUTCOMES,
};

enum metrics_refusal {
	REFUSED_SILENT,
	REFUSED_CROWDED,
	REFUSED_PEER,
	REFUSALS,
};

#define METRICS_BUCKETS  13
#define METRICS_FAILURES 64

struct metrics {
	struct metrics_job {
		uint64_t started, outcome[OUTCOMES];
		uint64_t rounds, pages, bytes, stream_bytes, throttled;
		uint64_t fetched, faults;
		uint64_t downtime[METRICS_BUCKETS + 1]; /* the last one: longer than all bounds */
		double downtime_sum;
	} job[METRICS_VERBS];
	struct metrics_failure {
		enum metrics_verb verb;
		char phase[32];
		uint64_t n;
	} failures[METRICS_FAILURES + METRICS_VERBS]; /* the rest is for "other" */
	size_t n_failures;
	uint64_t connections, refused[REFUSALS];
	double start_time;
};

void metrics_init(struct metrics *m);
void metrics_start(struct metrics *m, const char *verb);
/* @before: the status of its job as it was before this event. */
void metrics_event(struct metrics *m, const struct job_status *before, const json_t *event);
/* @code: 0 done, ECANCELED, or another errno; -1: it said nothing. */
void metrics_end(struct metrics *m, const char *verb, int code, const char *phase);

/* What is so at the moment. */
struct metrics_now {
	const struct job_status *const *jobs;
	size_t n_jobs;
	unsigned queued;
};
void metrics_print(const struct metrics *m, const struct metrics_now *now, FILE *f);
