/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * The keeper of a target between two commands of a pre-dump chain.
 *
 * `ferry pre-dump` starts it and then is its first client; later commands on the same process are further
 *ones. It has a worker (service/worker.h) that holds the session and with it the dirty tracking, passes
 *requests to it and events and results back, and cures the target if the worker dies.  It ends after the
 *final dump, after any failure or cancel, when the target ends, and when it is told to ("end").
 *
 * Socket keepers/PID.sock, one packet per message (service/msg.h):
 *	{"op":"pre-dump"|"dump", ...} with the images directory [and the page server's socket] -> events,
 *{"result":...}
 *	{"op":"cancel"} on that connection, or its end: the request is given up
 *	{"op":"status"} -> status; {"op":"end"} -> {"result":...} after the tracking has ended
 */
#include <sys/types.h>

#include "base/error.h"
#include "service/chain.h"

/* A connection to the keeper of @pid; with @start, one is made if there is none. -ENOENT without an error
 * text: there is none. */
int keeper_connect(pid_t pid, bool start, const struct chain_ops *ops, struct error *e);
/* Send a request with its descriptors. The answers are for job_run_peer(). */
int keeper_request(int sock, const struct chain_request *r, struct error *e);
/* -EBUSY if @pid has one: it is tracked already, and two trackers of one process would not see each other's
 * pages. */
int keeper_check(pid_t pid, struct error *e);
/* End the keeper of @pid, if there is one. 1: there was one, and it has ended; 0: none. */
int keeper_end(pid_t pid, struct error *e);
