/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Post-copy at the destination: the tree runs, its missing pages are fetched. */
#include "base/error.h"
#include "base/events.h"
#include "engine/pager.h"
#include "migrate/peer.h"
#include "migrate/states.h"

struct fetch_options {
	const struct events *events;
	const char *name;   /* of all this, for the log */
	const char *listen; /* where connections of the source are handed over (migrate/lane.h); NULL: none
			       come */
	/* A connection on which pages can be asked for, tried anew each second; NULL: the source comes
	 * itself. */
	int (*dial)(void *ctx, int lane, struct peer *ret, struct error *e);
	int (*finished)(void *ctx,
			struct error *e); /* all is there, the source does not know yet. NULL: nothing */
	void *ctx;
};
/* Until all pages are there. @sock: a connection of the source for lane @lane, or -1. */
int fetch_pages(struct pager *p, const struct fetch_options *o, int sock, int lane, struct error *e);

/*
 * To be called in state `fetching`: until all pages are there, then on to `running`.  @sock: a connection
 * that serves lane @lane already, or -1; the others come by themselves.  Returns 0 when all is there and the
 * source, where it could be reached, knows it (machine in `running` or `ended`); -ECANCELED when told to
 * stop: everything is left for the next one who takes it up.
 */
int fetch_run(struct machine *m, const char *dir, struct pager *p, int sock, int lane, struct error *e);
