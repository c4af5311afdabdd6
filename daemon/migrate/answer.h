/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Whoever has pages that are missing elsewhere: answers requests for them over one connection. */
#include <stdint.h>
#include <sys/types.h>

#include "base/error.h"
#include "base/events.h"
#include "migrate/peer.h"

struct answerer {
	/* Pages of process @pid. 0; -ENOENT (no error set): no such process; else -errno with @e: they are
	 * lost. */
	int (*read)(void *ctx, pid_t pid, uint64_t addr, uint64_t length, void *data, struct error *e);
	void *ctx;
	const struct events *events; /* is told of the progress of the other side; NULL: nobody */
};

enum answer_outcome {
	ANSWER_AGAIN, /* the connection is of no use any more */
	ANSWER_OVER,  /* the other side has all it needs */
};

/* Until one of these, with the reason for the first in @link; or -errno with @e: this side cannot go on. */
int answer_wants(const struct answerer *a, struct peer *p, struct error *link, struct error *e);
