/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/resume.h"

#include <errno.h>
#include <string.h>

#include "base/util.h"
#include "migrate/doubt.h"
#include "service/rundir.h"

struct settle {
	char uuid[37];
	enum doubt_decision how;
	struct link_options link;
	bool must_move; /* that it runs on here is a failure */
};

static int settle(void *ctx, int sock, const struct events *ev, struct error *e)
{
	struct settle *s = ctx;

	(void)sock;
	int r = doubt_see_through(rundir_path(), s->uuid, s->how, &s->link, ev, e);

	if (r < 0)
		return r;
	events_emit(ev, json_pack("{s:s,s:s,s:b}", "event", "settled", "uuid", s->uuid, "moved", r));
	if (!r && s->must_move)
		return error_say(e, ECONNABORTED,
				 "the destination did not start the program; it runs on here");
	return 0;
}

/* Before anything was decided: it runs on, and only the entry is left. */
static bool died_early(const char *uuid, const struct link_options *o, const struct events *ev)
{
	struct error ignore = ERROR_INIT;
	struct journal *j;

	if (journal_open(&j, rundir_path(), SIDE_SOURCE, uuid, &ignore) < 0)
		return true;
	bool early = j->state == SOURCE_COPYING;

	journal_free(j);
	if (early)
		(void)doubt_settle(rundir_path(), uuid, DOUBT_ASK_ONCE, o, ev, &ignore);
	return early;
}

int resume_after_death(struct cli *c, struct job *j, pid_t pid, bool moved, struct error *e)
{
	struct settle s = {.link = {.keys_dir = c->o.keys, .insecure = c->o.insecure}, .must_move = true};
	struct error first = *e;

	/* Told to stop in doubt: the entry is there, but nobody is to wait. */
	if (e->code == EINPROGRESS)
		return -e->code;
	if (!doubt_find_target(rundir_path(), pid, s.uuid)) {
		if (moved)
			error_clear(e);
		return -e->code;
	}
	if (died_early(s.uuid, &s.link, &c->events))
		return -e->code;
	log_line(&c->log, 2, "%s; migration %s is brought to its end", first.text, s.uuid);
	error_clear(e);
	return job_run_worker(j, settle, &s, c->log.level, e);
}

static int resume_one(struct cli *c, const char *uuid, struct error *e)
{
	struct settle s = {.link = {.keys_dir = c->o.keys, .insecure = c->o.insecure},
			   .how = c->o.here && c->o.force    ? DOUBT_GO_BACK
				  : c->o.here                ? DOUBT_HERE
				  : c->o.there && c->o.force ? DOUBT_GIVE_UP
				  : c->o.there               ? DOUBT_THERE
							     : DOUBT_ASK};
	struct journal *seen;
	struct job *j = NULL;
	int r = journal_open(&seen, rundir_path(), SIDE_SOURCE, uuid, e);

	if (r == -ENOENT) {
		error_clear(e);
		return error_say(e, ENOENT, "no migration %s waits for a decision here (see ferry status)",
				 uuid);
	}
	if (r < 0)
		return r;
	pid_t target = seen->n_procs ? seen->procs[0].pid : 0;

	journal_free(seen); /* and its lock */
	snprintf(s.uuid, sizeof(s.uuid), "%s", uuid);
	display_target(&c->display, target);
	r = job_open(&j, "resume", target, &c->events, e);
	if (r == 0)
		r = job_run_worker(j, settle, &s, c->log.level, e);
	job_free(j);
	return r;
}

int verb_resume(struct cli *c, struct error *e)
{
	char uuid[37];

	if (c->argc > 1)
		return error_say(e, EINVAL, "resume takes the id of one migration, or nothing for all");
	if (c->o.here && c->o.there)
		return error_say(e, EINVAL, "--here and --there exclude each other");
	if (c->argc == 1)
		return resume_one(c, c->argv[0], e);
	if (c->o.here || c->o.there)
		return error_say(e, EINVAL,
				 "--here and --there need the id of the migration they are meant for");
	while (doubt_find_left(rundir_path(), uuid)) {
		int r = resume_one(c, uuid, e);

		if (r < 0)
			return r;
	}
	return 0;
}
