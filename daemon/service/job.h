/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * A job as its supervisor sees it: one verb at work on one target, done by a worker or by a keeper.  While it
 * runs, the supervisor passes events on, answers "status" and "cancel" on its socket in the run directory,
 * turns Ctrl-C into a cancel, and cures the target if the worker dies.
 */
#include <sys/types.h>

#include "base/error.h"
#include "base/events.h"
#include "service/worker.h"

struct job;

/* Reserve @target for @verb: a clear refusal if another job works on it. Without a usable run directory the
 * job goes on and says so in a log event. SIGINT, SIGTERM and SIGHUP are blocked until job_free. */
int job_open(struct job **ret, const char *verb, pid_t target, const struct events *ev, struct error *e);
/* Run @fn in a worker to its end. */
int job_run_worker(struct job *j, worker_fn fn, void *ctx, int log_level, struct error *e);
/* Events and result come from @sock (a keeper's); a cancel is sent there as {"op":"cancel"}. */
int job_run_peer(struct job *j, int sock, struct error *e);
void job_free(struct job *j);

/* Answer one request on a listening status socket: @status (its reference is taken) for {"op":"status"}.
 * Returns 1 for
 * {"op":"cancel"} (acknowledged), 2 for another operation, whose connection goes to *ret_sock with its
 * message in *ret_msg and descriptors in
 * @ret_fds; else 0. */
int job_answer(int listener, json_t *status, int *ret_sock, json_t **ret_msg, int *ret_fds);
/* The same on a connection that has been accepted (-1: none), and is taken over. */
int job_answer_one(int sock, json_t *status, int *ret_sock, json_t **ret_msg, int *ret_fds);
