/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Post-copy at the destination: the tree runs, its missing pages are fetched. */
#include "base/error.h"
#include "base/events.h"
#include "engine/pager.h"
#include "migrate/peer.h"
#include "migrate/states.h"

/*
 * To be called in state `fetching`: until all pages are there, then on to `running`.  @sock: a connection
 * that serves lane @lane already, or -1; the others come by themselves.  Returns 0 when all is there and the
 * source, where it could be reached, knows it (machine in `running` or `ended`); -ECANCELED when told to
 * stop: everything is left for the next one who takes it up.
 */
int fetch_run(struct machine *m, const char *dir, struct pager *p, int sock, int lane, struct error *e);
