/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Metrics (docs/metrics.md) in the loop of ferryd: jobs of this machine that tell what happens to them, and
 * scrapers that ask.  Neither is ever waited for.
 */
#include <poll.h>
#include <sys/types.h>

#include "base/error.h"
#include "service/metrics.h"

#define MONITOR_JOBS     128
#define MONITOR_SCRAPERS 8
#define MONITOR_MAX      (1 + MONITOR_JOBS + MONITOR_SCRAPERS)

struct monitor;

/* @where: a loopback address with a port, or the path of a unix socket. Its file goes with the monitor. */
int monitor_new(struct monitor **ret, const char *where, struct error *e);
/* The error of an address that other machines reach. */
int monitor_refuse(const char *where, struct error *e);
void monitor_free(struct monitor *m);
struct metrics *monitor_metrics(struct monitor *m);
/* A job that has said that it wants to tell; @sock is taken over. */
void monitor_add_job(struct monitor *m, int sock, const json_t *hello);
/* One entry per descriptor; at most MONITOR_MAX. Returns how many; for those alone (a child closes them). */
size_t monitor_poll(const struct monitor *m, struct pollfd *p);
/* Milliseconds until somebody has been too slow; -1: never. */
int monitor_left_ms(const struct monitor *m, uint64_t now);
/* @p as it came from monitor_poll and poll(2). @own, @n_own, @queued: what else is at work. */
void monitor_handle(struct monitor *m, const struct pollfd *p, size_t n, const struct job_status *const *own,
		    size_t n_own, unsigned queued);

/* The other end: tell the ferryd of this machine, if there is one that wants to know. A descriptor or -1. */
int monitor_tell_open(const char *verb, pid_t target);
/* Closes *sock when nobody listens any more. -1 is fine. */
void monitor_tell(int *sock, const json_t *message);
