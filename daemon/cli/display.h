/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * What a person (or a program: --json) sees of a job.  One line per round, then a summary.  On a terminal the
 * line of what goes on now is written over by the next.
 */
#include <stdbool.h>
#include <stdio.h>
#include <sys/types.h>
#include <jansson.h>

#include "base/events.h"

struct display {
	FILE *out;
	bool json, terminal;
	bool live;        /* a line that is to be written over is on the screen */
	const char *verb; /* "dumped", "moved to HOST"...: for the summary */
	const char *where;
	char program[80]; /* "redis-server (pid 17)" */
	int rounds;
	bool serving;              /* dump --lazy-pages */
	long long fetched, faults; /* post-copy: pages, threads that waited */
	double p50_us, p99_us, max_us;
};

void display_init(struct display *d, FILE *out, bool json);
/* What it is about, before it says so itself. */
void display_target(struct display *d, pid_t pid);
void display_event(struct display *d, const json_t *event);
/* Post-copy: what the last event "fetch" told. */
void display_fetched(struct display *d);
/* Clear a live line. */
void display_end(struct display *d);

/* "1.2 GiB"; @buf has room for 32 bytes. */
const char *display_bytes(double bytes, char *buf);
/* "3.4 ms", "12 s" */
const char *display_ms(double ms, char *buf);
