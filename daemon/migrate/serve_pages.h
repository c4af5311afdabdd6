/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Post-copy at the source: the frozen original serves its pages until the destination has all of them. */
#include "base/error.h"
#include "base/events.h"
#include "migrate/journal.h"
#include "migrate/link.h"

/*
 * @j: in state `serving`, its processes stand still.  @link: the connection on which RUNNING came, taken over
 * for the first lane (sock -1: none).  0 when the destination has all it needs; -ECANCELED: told to stop,
 * everything is as it was, and the next one can go on; -ESRCH: the original has been killed, its pages are
 * lost.
 */
int serve_pages(const struct journal *j, struct link *link, const struct link_options *o,
		const struct events *ev, struct error *e);
