/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * How many migrations arrive at the same time.  A worker that has heard HELLO asks; those that have to wait
 * are let in in the order in which they asked.  Connections that are there for something else, or say
 * nothing, take no place.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/error.h"

enum admission {
	ADMISSION_NONE, /* did not ask */
	ADMISSION_QUEUED,
	ADMISSION_LET_IN,
};

struct applicant {
	enum admission state;
	uint64_t ticket;   /* who asked earlier has a smaller one */
	unsigned position; /* as it was told; 0: not told yet */
};

struct admission_limits {
	unsigned running, queued;
};

/* @of: applicant number @i (NULL: there is none), of @n. False: the queue is full. */
typedef struct applicant *(*applicant_fn)(void *ctx, size_t i);
bool admission_ask(struct applicant *a, const struct admission_limits *l, applicant_fn of, void *ctx,
		   size_t n);
/* Someone has come or gone: let in who may, and tell those whose place has changed. @tell with position 0:
 * let in. */
void admission_update(const struct admission_limits *l, applicant_fn of, void *ctx, size_t n,
		      void (*tell)(void *ctx, size_t i, unsigned position));

/* The worker's side; serve_options.admit. */
struct admission_door {
	int sock; /* to the daemon */
	bool asked;
	int position;
};
int admission_wait(void *door, struct error *e);
