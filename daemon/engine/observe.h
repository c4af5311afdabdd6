/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Following a target without copying it: what does it write, and how would a migration go?  No page is read.
 *
 * Emits for each interval an event "sample" and at the end an event "done" (docs/events.md).
 */
#include "engine/session.h"

struct observe_options {
	uint64_t interval_ms;
	uint64_t count;       /* so many intervals; 0: no end */
	uint64_t duration_ms; /* so long; 0: no end */
	uint64_t bandwidth;   /* bytes/s of the migration that is predicted; 0: what loopback_bandwidth()
				 measures */
};

/* From session_open (with observe) on. Until the count or the time is reached, the job is aborted, or the
 * root ends: all of that is success. */
int session_observe(struct session *s, const struct observe_options *o, struct error *e);

/* What a stream of pages reaches between two threads of this process over a loopback TCP connection,
 * checksums and copying to and from /proc/self/mem included: bytes/s. Takes about a quarter of a second. */
int loopback_bandwidth(uint64_t *ret, struct error *e);
