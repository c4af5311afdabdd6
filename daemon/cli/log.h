/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* The log of one call: lines "(seconds.micros) text" in the log file; without one, on the standard error
 * output. */
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "base/error.h"

struct log {
	FILE *f; /* NULL: standard error output */
	int level;
	uint64_t start;
};

/* Start to count; warnings and errors go to the standard error output. */
void log_init(struct log *l);
/* @name lies in @dir unless absolute. An older file is replaced. */
int log_open(struct log *l, const char *dir, const char *name, struct error *e);
/* @level: 1 error, 2 warning, 3 information, 4 debug. */
void log_line(struct log *l, int level, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* The last line, in the log and on the standard error output. */
void log_error(struct log *l, const struct error *e);
void log_close(struct log *l);
