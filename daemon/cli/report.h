/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * What is kept of a migration: DIR/ID.json (docs/events.md), with every event and when it came.  The ID is
 * time and pid: 20261121-151203-4711.
 */
#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/types.h>

#include "base/error.h"

#define REPORT_DIR  "/var/lib/ferry/reports"
#define REPORT_KEEP 100 /* the newest of them */

struct report;

struct report *report_new(const char *program, pid_t pid, const char *to);
void report_event(struct report *r, const json_t *event);
/* Write it into @dir, which is made if need be, and remove the oldest there. @failure: NULL, or why it did
 * not move. *ret_id is valid until report_free. */
int report_write(struct report *r, const char *dir, const char *failure, const char **ret_id,
		 struct error *e);
void report_free(struct report *r);

/* The caller's, or NULL with @e. @id: as in its file's name, nothing else. */
json_t *report_read(const char *dir, const char *id, struct error *e);
/* Ids in @dir, newest first: an array of strings, the caller's. An empty one if there is no such directory.
 */
json_t *report_list(const char *dir);

/* The rounds over time, bandwidth and dirty rate, and where the downtime went. false: @f has an error. */
bool report_svg(FILE *f, const json_t *report);
/* A page with that picture and the numbers. */
bool report_html(FILE *f, const json_t *report);
