/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * The loop of ferryd.  Each peer is served by a worker of its own, so that one connection cannot hurt
 * another, and the daemon itself holds nothing a migrated program needs: such a program is a child of the
 * daemon only so that somebody reaps it, and runs on when the daemon ends.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/events.h"
#include "migrate/migrate.h"
#include "service/admission.h"
#include "service/monitor.h"

/* Whom a line of the log is about, as far as it is known: "", 0: not. */
struct log_about {
	const char *peer, *migration;
	pid_t pid;
};

struct daemon_options {
	unsigned max_peers;                /* served at the same time; more are turned away */
	struct admission_limits admission; /* of them, migrations */
	unsigned max_per_host;             /* ... of them, from one address that is not loopback; 0: any */
	int first_byte_ms;                 /* a connection that says nothing for so long is dropped */
	int log_level;
	/* Serve one connection, in a process of its own: migrate_serve. */
	int (*serve)(int sock, const struct serve_options *o, const struct events *ev, struct error *e);
	/* What processes that have died left undone: is there any, and (in a process of its own) see to it.
	 * NULL: nobody looks. */
	bool (*recover_needed)(const struct serve_options *o);
	int (*recover)(const struct serve_options *o, const struct events *ev, struct error *e);
	struct serve_options serve_options;
	void (*log)(int level, const char *text, const struct log_about *about);
	struct monitor *monitor; /* NULL: nothing is counted */
	int64_t control_gid;     /* who may ask for errands; -1: nobody */
	const char *libdir;      /* for them; NULL: as it is found */
	/* SIGHUP: change what may change while it runs: all but max_peers, control_gid and what is a pointer.
	 */
	int (*reload)(struct daemon_options *o, struct error *e);
	/* Called at least so often, from the loop. */
	void (*alive)(void);
	int alive_ms;
};

/* Serve until SIGTERM or SIGINT, then end the workers in order. @listeners: listening TCP sockets; @control:
 * listening socket of service/rundir.h, or -1. They stay the caller's. */
int daemon_run(struct daemon_options *o, const int *listeners, size_t n, int control, struct error *e);
