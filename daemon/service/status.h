/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* What a job answers when asked how far it is: kept up to date from its events. */
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct job_status {
	char verb[24];
	pid_t target;
	char phase[32];   /* "start", "rounds", "frozen", "done"... */
	char uuid[37];    /* of a migration; "": none, or not known yet */
	int64_t position; /* in the queue; 0: not in it */
	uint64_t since_ns;
	int64_t rounds, pages, bytes, total_bytes, processes;
	double left_ms, dirty_mib_s;
	int64_t missing, left, arrived, faults; /* post-copy: pages missing at the start, and now */
	double p50_us, p99_us, max_us;          /* of its faults */
	bool broken;                            /* its link */
};

void status_init(struct job_status *s, const char *verb, pid_t target);
void status_event(struct job_status *s, const json_t *event);
/* {"verb", "target", "pid", "phase", "seconds", "rounds", "pages", "bytes", "total_bytes", "percent",
 * "left_ms"}, of a migration "uuid", perhaps "position", and of a post-copy "fetch" {"total", "left",
 * "faults", "p50_us", "p99_us", "max_us", "link"} */
json_t *status_json(const struct job_status *s);
