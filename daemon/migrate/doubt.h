/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * The source in doubt: COMMIT may have been received, but no RUNNING came.  The copy here stands still until
 * the destination, asked by the migration's id, says what became of it; who asks may be the migration itself
 * or, when that has died, a successor that finds its journal.
 */
#include "base/error.h"
#include "base/events.h"
#include "migrate/journal.h"
#include "migrate/link.h"

enum doubt_decision {
	DOUBT_ASK,      /* the destination decides */
	DOUBT_ASK_ONCE, /* the same, but -EAGAIN when it does not answer or has not decided yet */
	DOUBT_GO_BACK,  /* it has run over there, on a machine that was restarted since: the copy here runs on
			 */
	DOUBT_HERE,     /* the operator knows that it does not run over there: the copy here runs on */
	DOUBT_THERE,    /* the operator knows that it runs, or has run, over there: the copy here is killed */
	DOUBT_GIVE_UP,  /* the same, and pages that are only here are given up */
};

/* Ask once a second until the destination knows. 1: it runs there, 0: it never will; -ECANCELED: told to
 * stop, it is as much in doubt as before. */
int doubt_ask(const struct journal *j, const struct link_options *o, const struct events *ev,
	      struct error *e);
/* Tell the destination that it need not remember any longer; best effort. */
void doubt_done(const struct journal *j, const struct link_options *o);

/* Bring a migration whose process has died to its end. @o: the journal's own --insecure counts, too. Returns
 * 1 when the target has moved, 0 when it runs on here; -EBUSY when somebody is at work on it. */
int doubt_settle(const char *dir, const char *uuid, enum doubt_decision how, const struct link_options *o,
		 const struct events *ev, struct error *e);
/* The same to its end, also if somebody else is faster. */
int doubt_see_through(const char *dir, const char *uuid, enum doubt_decision how,
		      const struct link_options *o, const struct events *ev, struct error *e);
/* Is there one that nobody is at work on? Its id to @ret_uuid. */
bool doubt_find_left(const char *dir, char ret_uuid[37]);
/* Is there one of this target, whoever is at work on it? */
bool doubt_find_target(const char *dir, pid_t target, char ret_uuid[37]);
