/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * What a long job tells while it runs.  The library emits, programs decide what to do with it: a live
 * line on a terminal, one JSON object per line (--json), a line in the log.  An event is a JSON object
 * with a string member "event"; the names and members are listed in docs/events.md.
 */
#include <jansson.h>

struct events {
	void (*emit)(void *ctx, const json_t *event); /* must not keep the object */
	void *ctx;
};

/* Takes the reference to @event (from json_pack). @ev may be NULL or have no emit: then nothing happens. */
void events_emit(const struct events *ev, json_t *event);
/* A line for the log: event "log" with "level" (1 error, 2 warning, 3 info, 4 debug) and "text". */
void events_log(const struct events *ev, int level, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
