/* SPDX-License-Identifier: Apache-2.0 */
#include "migrate/arrival.h"

#include <errno.h>

#include "base/util.h"
#include "engine/pager.h"
#include "migrate/join.h"
#include "migrate/lane.h"

/* Its process has died in this state; its skeletons were killed with it, or stopped (engine/start.c). */
static int succeed(struct machine *m, const char *dir, struct error *e)
{
	cleanup_free char *pages = lane_state_path(dir, m->journal->uuid);
	int r = 0;

	switch (m->state) {
	case DEST_RECEIVING:
	case DEST_BUILDING:
	case DEST_READY:
	case DEST_COMMITTED:
		r = journal_kill(m->journal, e);
		if (r >= 0) {
			join_forget(dir, m->journal->uuid);
			pager_discard(pages);
			r = machine_move(m, DEST_ABORTED, e);
		}
		break;
	case DEST_STARTING:
		if (journal_take_addresses(m->journal, e) < 0) { /* it runs all the same */
			events_log(m->events, 1, "migration %s: %s", m->journal->uuid, e->text);
			error_clear(e);
		}
		journal_let_go(m->journal);
		r = machine_move(m, pager_is_left(pages) ? DEST_FETCHING : DEST_RUNNING, e);
		break;
	case DEST_FETCHING: /* in the moment between the last page and the journal? */
		if (pager_is_finished(pages)) {
			r = machine_move(m, DEST_RUNNING, e);
			pager_discard(pages);
		}
		break;
	default:
		break;
	}
	return r;
}

static const char *answer_of(enum migration_state s)
{
	switch (s) {
	case DEST_STARTING:
	case DEST_RUNNING:
		return "running";
	case DEST_FETCHING:
		return "fetching";
	case DEST_ABORTED:
		return "aborted";
	default:
		return "pending";
	}
}

const char *arrival_answer(const char *dir, const char *uuid, const struct events *ev)
{
	struct error e = ERROR_INIT;
	struct journal *j;
	int r = journal_open(&j, dir, SIDE_DESTINATION, uuid, &e);

	if (r < 0)
		return r == -ENOENT ? "unknown" : "pending";
	struct machine m = {.state = j->state, .journal = j, .events = ev};

	if (j->fd >= 0)
		r = succeed(&m, dir, &e);
	if (r < 0)
		events_log(ev, 1, "migration %s: %s", uuid, e.text);
	const char *answer = answer_of(m.state);

	journal_free(j);
	return answer;
}

void arrival_forget(const char *dir, const char *uuid, const struct events *ev)
{
	struct error e = ERROR_INIT;
	struct journal *j;

	if (journal_open(&j, dir, SIDE_DESTINATION, uuid, &e) < 0)
		return;
	struct machine m = {.state = j->state, .journal = j, .events = ev};

	if (j->fd >= 0 && (j->state == DEST_RUNNING || j->state == DEST_ABORTED))
		(void)machine_move(&m, DEST_ENDED, &e);
	journal_free(j);
}

struct recovery {
	const struct events *events;
	size_t n;
};

static int recover_one(void *ctx, const char *dir, const char *uuid)
{
	struct recovery *c = ctx;
	struct error e = ERROR_INIT;
	struct journal *j;

	if (journal_open(&j, dir, SIDE_DESTINATION, uuid, &e) < 0)
		return 0;
	struct machine m = {.state = j->state, .journal = j, .events = c->events};
	bool early = j->state == DEST_RECEIVING || j->state == DEST_BUILDING;

	/* One that fetches is taken up when the source comes. */
	if (j->fd >= 0 && j->state != DEST_FETCHING && j->state != DEST_RUNNING && j->state != DEST_ABORTED) {
		c->n++;
		events_log(c->events, 2, "migration %s was left in state \"%s\" by a process that has died",
			   uuid, migration_state_name(j->state));
		if (succeed(&m, dir, &e) < 0)
			events_log(c->events, 1, "migration %s: %s", uuid, e.text);
		else if (early) /* no READY was sent: the source is not in doubt */
			(void)machine_move(&m, DEST_ENDED, &e);
	}
	journal_free(j);
	return 0;
}

size_t arrivals_recover(const char *dir, const struct events *ev)
{
	struct recovery c = {.events = ev};

	journal_each(dir, SIDE_DESTINATION, recover_one, &c);
	journal_sweep(dir, SIDE_DESTINATION);
	return c.n;
}
