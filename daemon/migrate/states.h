/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * The two state machines of a migration, one on each side: docs/migration-protocol.md, "States".
 *
 * Every change of state goes through machine_move(): it refuses what is not in the table, brings the journal
 * to the new state before anything is done that belongs to it, and tells an event.  test/model/ has the same
 * machines for a model checker; who changes the table changes the model.
 */
#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"
#include "base/events.h"

enum migration_side { SIDE_SOURCE, SIDE_DESTINATION };

enum migration_state {
	SOURCE_IDLE,       /* nothing is there yet */
	SOURCE_HELLO,      /* connected, HELLO is on its way */
	SOURCE_COPYING,    /* both agree; rounds, the target runs */
	SOURCE_FROZEN,     /* the target stands; last pages and state go out */
	SOURCE_SENT,       /* everything is sent, nothing of ours is left in the target; waits for READY */
	SOURCE_COMMITTING, /* COMMIT may have left this machine: only the destination knows */
	SOURCE_ASKING,     /* no RUNNING came: asks what became of it */
	SOURCE_SERVING,    /* post-copy: it runs over there, and needs pages that are here */
	SOURCE_MOVED,      /* it runs over there: the copy here must go */
	SOURCE_STAYED,     /* it will never run over there: the target goes on here */
	SOURCE_ENDED,

	DEST_IDLE,
	DEST_RECEIVING, /* HELLO was good; skeletons are built and filled */
	DEST_BUILDING,  /* FINAL is there: everything but the start */
	DEST_READY,     /* waits for COMMIT; from here on the source may be in doubt */
	DEST_COMMITTED, /* COMMIT is there: it will be started, or what is there of it killed */
	DEST_STARTING,  /* decided: it runs, also if this process dies now */
	DEST_FETCHING,  /* post-copy: it runs, pages of it are still at the source */
	DEST_RUNNING,
	DEST_ABORTED, /* it never ran and never will */
	DEST_ENDED,   /* the source knows, too */

	MIGRATION_STATES,
	MIGRATION_NO_STATE = MIGRATION_STATES,
};

/* What entering a state does with the journal. */
enum journal_rule {
	JOURNAL_NOTHING,
	JOURNAL_MUST,   /* written and synced first; without that the move fails */
	JOURNAL_SHOULD, /* the same, but a failure stops nothing: what was written before is good enough */
	JOURNAL_REMOVE, /* it has served its purpose */
};

struct state_row {
	enum migration_state state;
	const char *name; /* in the journal, in events, in the log */
	enum migration_side side;
	enum journal_rule journal;
};

struct transition_row {
	enum migration_state from, to;
	const char *why; /* the event that leads there */
};

extern const struct state_row state_rows[MIGRATION_STATES];
extern const struct transition_row transition_rows[];
extern const size_t n_transition_rows;

bool transition_is_legal(enum migration_state from, enum migration_state to);
const char *migration_state_name(enum migration_state s);
/* MIGRATION_NO_STATE: no such name on this side. */
enum migration_state migration_state_find(enum migration_side side, const char *name);

struct journal;

struct machine {
	enum migration_state state;
	struct journal *journal; /* NULL: none (yet) */
	const struct events *events;
};

/* Go to @to, which the caller then acts upon. -EPROTO when the table has no such transition; the errno of the
 * journal where it must be written: then the state is what it was. */
int machine_move(struct machine *m, enum migration_state to, struct error *e);

/* For tests that stop, kill or cut at a point that no clock has to find: called around the work of each
 * machine_move(), @after it when the journal has the new state.  NULL in the programs that are installed. */
extern void (*machine_fault)(enum migration_state to, bool after);
