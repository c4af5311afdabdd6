/* SPDX-License-Identifier: Apache-2.0 */
#include "migrate/states.h"

#include <errno.h>
#include <string.h>

#include "base/util.h"
#include "migrate/journal.h"

void (*machine_fault)(enum migration_state to, bool after);

#define SOURCE(s, name, rule) [s] = {s, name, SIDE_SOURCE, rule}
#define DEST(s, name, rule)   [s] = {s, name, SIDE_DESTINATION, rule}

/*
 * The journal of the source matters from `committing` on; it is made at `copying` so that a disk that cannot
 * take it is found with the target running.  That of the destination matters from `ready` on, as only then
 * the source can be in doubt; what is made earlier serves to find room for it.
 */
const struct state_row state_rows[MIGRATION_STATES] = {
	SOURCE(SOURCE_IDLE, "idle", JOURNAL_NOTHING),
	SOURCE(SOURCE_HELLO, "hello", JOURNAL_NOTHING),
	SOURCE(SOURCE_COPYING, "copying", JOURNAL_MUST),
	SOURCE(SOURCE_FROZEN, "frozen", JOURNAL_NOTHING),
	SOURCE(SOURCE_SENT, "sent", JOURNAL_NOTHING),
	SOURCE(SOURCE_COMMITTING, "committing", JOURNAL_MUST),
	SOURCE(SOURCE_ASKING, "asking", JOURNAL_SHOULD),
	SOURCE(SOURCE_SERVING, "serving", JOURNAL_SHOULD),
	SOURCE(SOURCE_MOVED, "moved", JOURNAL_SHOULD),
	SOURCE(SOURCE_STAYED, "stayed", JOURNAL_SHOULD),
	SOURCE(SOURCE_ENDED, "ended", JOURNAL_REMOVE),

	DEST(DEST_IDLE, "idle", JOURNAL_NOTHING),
	DEST(DEST_RECEIVING, "receiving", JOURNAL_MUST),
	DEST(DEST_BUILDING, "building", JOURNAL_NOTHING),
	DEST(DEST_READY, "ready", JOURNAL_MUST),
	DEST(DEST_COMMITTED, "committed", JOURNAL_MUST),
	DEST(DEST_STARTING, "starting", JOURNAL_MUST),
	DEST(DEST_FETCHING, "fetching", JOURNAL_SHOULD),
	DEST(DEST_RUNNING, "running", JOURNAL_SHOULD),
	DEST(DEST_ABORTED, "aborted", JOURNAL_SHOULD),
	DEST(DEST_ENDED, "ended", JOURNAL_REMOVE),
};

const struct transition_row transition_rows[] = {
	{SOURCE_IDLE, SOURCE_HELLO, "connected"},
	{SOURCE_HELLO, SOURCE_COPYING, "HELLO came back and fits"},
	{SOURCE_HELLO, SOURCE_STAYED, "refused, or the link broke"},
	{SOURCE_COPYING, SOURCE_FROZEN, "the rounds are over"},
	{SOURCE_COPYING, SOURCE_STAYED, "any failure, cancel or limit"},
	{SOURCE_FROZEN, SOURCE_SENT, "FINAL has left, the target is as it was"},
	{SOURCE_FROZEN, SOURCE_STAYED, "any failure, cancel or limit"},
	{SOURCE_SENT, SOURCE_COMMITTING, "READY came"},
	{SOURCE_SENT, SOURCE_STAYED, "any failure, cancel or limit"},
	{SOURCE_COMMITTING, SOURCE_MOVED, "RUNNING came"},
	{SOURCE_COMMITTING, SOURCE_ASKING, "the link broke, something else came, or we are a successor"},
	{SOURCE_COMMITTING, SOURCE_SERVING, "RUNNING came, and pages stayed here"},
	{SOURCE_ASKING, SOURCE_SERVING, "the answer is running or fetching, and pages stayed here"},
	{SOURCE_SERVING, SOURCE_MOVED,
	 "it needs nothing of here any more, or the operator gives the rest up"},
	{SOURCE_SERVING, SOURCE_STAYED,
	 "the machine there was restarted, which ended it, and the operator goes back to the state before"},
	{SOURCE_ASKING, SOURCE_MOVED, "the answer is running, or the operator says so"},
	{SOURCE_ASKING, SOURCE_STAYED, "the answer is aborted, or the operator says so"},
	{SOURCE_MOVED, SOURCE_ENDED, "the copy is gone"},
	{SOURCE_STAYED, SOURCE_ENDED, "the target runs on"},
	{SOURCE_COPYING, SOURCE_ENDED, "a successor finds that nothing was decided"},

	{DEST_IDLE, DEST_RECEIVING, "HELLO came and fits"},
	{DEST_RECEIVING, DEST_BUILDING, "FINAL came"},
	{DEST_RECEIVING, DEST_ABORTED, "any failure; the link broke; a successor finds this"},
	{DEST_BUILDING, DEST_READY, "everything but the start is done"},
	{DEST_BUILDING, DEST_ABORTED, "any failure; the link broke"},
	{DEST_READY, DEST_COMMITTED, "COMMIT came and all of the tree lives"},
	{DEST_READY, DEST_ABORTED, "any failure; the link broke; a successor finds this"},
	{DEST_COMMITTED, DEST_STARTING, "held: the end of this process would not kill it any more"},
	{DEST_COMMITTED, DEST_ABORTED, "it cannot be held; a successor has killed all of it"},
	{DEST_STARTING, DEST_RUNNING, "let go; a successor has let it go"},
	{DEST_STARTING, DEST_FETCHING, "let go, and pages are missing; a successor has let it go"},
	{DEST_FETCHING, DEST_RUNNING, "all pages are there"},
	{DEST_RUNNING, DEST_ENDED, "the source knows"},
	{DEST_ABORTED, DEST_ENDED, "the source knows, or never was in doubt"},
};
const size_t n_transition_rows = ARRAY_SIZE(transition_rows);

bool transition_is_legal(enum migration_state from, enum migration_state to)
{
	for (size_t i = 0; i < n_transition_rows; i++)
		if (transition_rows[i].from == from && transition_rows[i].to == to)
			return true;
	return false;
}

const char *migration_state_name(enum migration_state s)
{
	return s < MIGRATION_STATES ? state_rows[s].name : "none";
}

enum migration_state migration_state_find(enum migration_side side, const char *name)
{
	for (size_t i = 0; i < MIGRATION_STATES; i++)
		if (state_rows[i].side == side && !strcmp(state_rows[i].name, name))
			return state_rows[i].state;
	return MIGRATION_NO_STATE;
}

static int keep_journal(struct machine *m, const struct state_row *row, struct error *e)
{
	struct error trouble = ERROR_INIT;

	if (!m->journal || row->journal == JOURNAL_NOTHING)
		return 0;
	if (row->journal == JOURNAL_REMOVE) {
		journal_remove(m->journal);
		return 0;
	}
	int r = journal_state(m->journal, row->state, row->journal == JOURNAL_MUST ? e : &trouble);

	if (r < 0 && row->journal == JOURNAL_SHOULD) {
		events_log(m->events, 2, "the journal still says less than \"%s\": %s", row->name,
			   trouble.text);
		r = 0;
	}
	return r;
}

int machine_move(struct machine *m, enum migration_state to, struct error *e)
{
	if (to >= MIGRATION_STATES || !transition_is_legal(m->state, to))
		return error_say(e, EPROTO, "a migration cannot go from \"%s\" to \"%s\"",
				 migration_state_name(m->state), migration_state_name(to));
	const struct state_row *row = &state_rows[to];

	if (machine_fault)
		machine_fault(to, false);
	int r = keep_journal(m, row, e);

	if (r < 0)
		return r;
	m->state = to;
	events_emit(m->events, json_pack("{s:s,s:s,s:s,s:s*}", "event", "state", "side",
					 row->side == SIDE_SOURCE ? "source" : "destination", "state",
					 row->name, "uuid", m->journal ? m->journal->uuid : NULL));
	if (machine_fault)
		machine_fault(to, true);
	return 0;
}
