/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * A worker: the process that traces a target, apart from the one that a person can kill.
 *
 * It tells its supervisor events and, last, the result, over a socket pair.  Events are never waited for: the
 * target may be frozen while they are sent, and a stalled terminal must not add to its downtime.  What does
 * not fit into the socket is kept and sent later.  SIGTERM, SIGINT and SIGHUP ask it to stop (job_aborted()),
 * and so does the death of its supervisor: it then puts the target back by itself.
 */
#include <sys/types.h>

#include "base/error.h"
#include "base/events.h"

struct worker {
	pid_t pid;
	int pidfd; /* readable when it has ended */
	int sock;  /* SOCK_SEQPACKET: see service/msg.h */
};
#define WORKER_INIT       \
	{                 \
		0, -1, -1 \
	}

/* Runs in the new process. @sock: the worker's end, for requests; @ev: what is emitted reaches the
 * supervisor. The result is sent by the caller of this function, from @e. */
typedef int (*worker_fn)(void *ctx, int sock, const struct events *ev, struct error *e);

/* @log_level: log events above it are not sent. @close_fds: the supervisor's own descriptors, ended by -1.
 * The calling process must not have threads. */
int worker_start(struct worker *ret, worker_fn fn, void *ctx, int log_level, const int *close_fds,
		 struct error *e);
/* Ask it to stop. */
void worker_cancel(const struct worker *w);
/* Wait for its end (after @timeout_ms it is killed; -1: no bound) and close everything. Returns its wait
 * status. */
int worker_wait(struct worker *w, int timeout_ms);
/* SIGTERM, SIGINT, SIGHUP call job_abort() in this process and interrupt system calls; SIGPIPE is ignored. */
void worker_signals(void);

/* For a worker that serves several requests: send a message after all events kept so far; waits. */
int worker_send(const struct events *ev, const json_t *m);
