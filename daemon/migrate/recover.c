/* SPDX-License-Identifier: Apache-2.0 */
#include "migrate/recover.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/util.h"
#include "migrate/arrival.h"
#include "migrate/doubt.h"

static int is_arrival_left(void *ctx, const char *dir, const char *uuid)
{
	struct error ignore = ERROR_INIT;
	struct journal *j;

	(void)ctx;
	if (journal_open(&j, dir, SIDE_DESTINATION, uuid, &ignore) < 0)
		return 0;
	bool left = j->fd >= 0 && j->state != DEST_RUNNING && j->state != DEST_ABORTED;

	journal_free(j);
	return left;
}

static const char *journal_dir(const struct serve_options *o)
{
	return o->journal_dir ? o->journal_dir : "/run/ferry";
}

/* 1: nobody is at work on it, nor in charge. */
static int is_doubt_left(void *ctx, const char *dir, const char *uuid)
{
	const struct serve_options *o = ctx;
	struct error ignore = ERROR_INIT;
	struct journal *j;

	if (journal_open(&j, dir, SIDE_SOURCE, uuid, &ignore) < 0)
		return 0;
	bool left = j->fd >= 0;
	pid_t target = j->n_procs ? j->procs[0].pid : 0;

	journal_free(j);
	return left && !(o->attended && o->attended(target));
}

bool recover_needed(const struct serve_options *o)
{
	const char *dir = journal_dir(o);

	return journal_each(dir, SIDE_DESTINATION, is_arrival_left, NULL) ||
	       journal_each(dir, SIDE_SOURCE, is_doubt_left, (void *)o);
}

struct round {
	const struct serve_options *o;
	const struct events *events;
	bool tell;
	unsigned left;
};

static int settle_one(void *ctx, const char *dir, const char *uuid)
{
	struct round *round = ctx;
	struct error e = ERROR_INIT;

	if (!is_doubt_left((void *)round->o, dir, uuid))
		return 0;
	int r = doubt_settle(dir, uuid, DOUBT_ASK_ONCE, &round->o->link, round->events, &e);

	if (r >= 0)
		events_log(round->events, 2, "migration %s: %s", uuid,
			   r ? "the program has moved, its copy here is gone" : "the program runs on here");
	else if (r != -EBUSY && r != -ENOENT) {
		round->left++;
		if (round->tell)
			events_log(round->events, 2, "%s", e.text);
	}
	return job_aborted();
}

int recover_run(const struct serve_options *o, const struct events *ev, struct error *e)
{
	const char *dir = journal_dir(o);
	struct round round = {.o = o, .events = ev, .left = 1};

	arrivals_recover(dir, ev);
	for (unsigned n = 0; round.left && job_check_abort(e) >= 0; n++) {
		round.left = 0;
		round.tell = n % 60 == 0;
		journal_each(dir, SIDE_SOURCE, settle_one, &round);
		if (round.left)
			sleep(1);
	}
	return error_is(e) ? -e->code : 0;
}
