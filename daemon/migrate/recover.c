/* SPDX-License-Identifier: Apache-2.0 */
#include "migrate/recover.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
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
	bool left = j->fd >= 0 && j->state != DEST_FETCHING && j->state != DEST_RUNNING &&
		    j->state != DEST_ABORTED;

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
	unsigned left, serving;
};

/* Pages of it are here: it is served to its end by a process of its own, as that may take long. Its pid; 0:
 * none. */
static pid_t serve_one(const struct round *round, const char *uuid)
{
	struct error e = ERROR_INIT;
	pid_t parent = getpid();

	fflush(NULL);
	pid_t pid = fork();

	if (pid)
		return MAX(pid, 0);
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	if (getppid() != parent)
		_exit(1);
	if (doubt_settle(journal_dir(round->o), uuid, DOUBT_ASK_ONCE, &round->o->link, round->events, &e) <
		    0 &&
	    e.code != EBUSY && e.code != ECANCELED && e.code != EAGAIN)
		events_log(round->events, 1, "migration %s: %s", uuid, e.text);
	_exit(0);
}

static bool has_pages_here(const char *dir, const char *uuid)
{
	struct error ignore = ERROR_INIT;
	struct journal *j;

	if (journal_open(&j, dir, SIDE_SOURCE, uuid, &ignore) < 0)
		return false;
	bool has = j->left && j->state >= SOURCE_COMMITTING && j->state <= SOURCE_SERVING;

	journal_free(j);
	return has;
}

static int settle_one(void *ctx, const char *dir, const char *uuid)
{
	struct round *round = ctx;
	struct error e = ERROR_INIT;

	if (!is_doubt_left((void *)round->o, dir, uuid))
		return 0;
	if (has_pages_here(dir, uuid)) {
		round->serving += serve_one(round, uuid) > 0;
		return job_aborted();
	}
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
	for (unsigned n = 0; (round.left || round.serving) && job_check_abort(e) >= 0; n++) {
		round.left = 0;
		round.tell = n % 60 == 0;
		journal_each(dir, SIDE_SOURCE, settle_one, &round);
		if (round.left || round.serving)
			sleep(1);
		while (round.serving && waitpid(-1, NULL, WNOHANG) > 0)
			round.serving--;
	}
	while (round.serving && waitpid(-1, NULL, 0) > 0)
		round.serving--;
	return error_is(e) ? -e->code : 0;
}
