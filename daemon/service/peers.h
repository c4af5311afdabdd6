/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* The inside of the daemon: its peers, and what its parts need of each other. */
#include <poll.h>

#include "service/daemon.h"
#include "service/errands.h"
#include "service/status.h"
#include "service/waiting.h"
#include "service/worker.h"

#define MAX_LISTENERS 8
struct peer {
	struct worker worker;
	struct job_status status;
	struct applicant applicant;
	char name[80]; /* address and port */
	bool counted;  /* by the metrics: it has begun */
};

struct daemon {
	struct daemon_options *o;
	const int *listeners;
	size_t n_listeners;
	int control, signals;
	struct peer *peers; /* max_peers; worker.pid 0: free */
	size_t n_peers;
	struct waiting_room waiting;
	struct peer heir; /* sees to what the dead left behind */
	uint64_t looked, swept;
	uint64_t ending; /* since when; 0: not */
	struct errand errands[ERRANDS_MAX];
};

void daemon_say(const struct daemon *d, int level, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
/* Of one peer: its name goes in front. */
void daemon_say_of(const struct daemon *d, const struct peer *p, int level, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));

/* control.c: a connection to the control socket; what poll said of the monitor. */
void control_answer(struct daemon *d);
void control_monitor(struct daemon *d, const struct pollfd *p, size_t n);
