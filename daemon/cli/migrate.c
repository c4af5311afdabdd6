/* SPDX-License-Identifier: Apache-2.0 */
#include "migrate/migrate.h"
#include "migrate/rehearsal.h"

#include <errno.h>
#include <string.h>

#include "base/util.h"
#include "cli/capture.h"
#include "cli/prediction.h"
#include "cli/report.h"
#include "cli/resume.h"
#include "service/job.h"
#include "service/msg.h"
#include "service/keeper.h"
#include "service/rundir.h"

struct work {
	struct migrate_options o;
	uint64_t rehearsal_ms; /* 0: it is meant */
	struct script script;
	struct hooks hooks;
};

static int work(void *ctx, int sock, const struct events *ev, struct error *e)
{
	struct work *w = ctx;

	(void)sock;
	return w->rehearsal_ms ? rehearsal_run(&w->o, w->rehearsal_ms, ev, e) : migrate_run(&w->o, ev, e);
}

/* What the worker said last is known even if it was killed before it could say that it has ended well. */
struct watch {
	const struct events *events;
	pid_t pid;
	bool moved;
	json_t *predicted;     /* by a dry run before; NULL: there was none */
	struct report *report; /* NULL: none is kept */
};

static void on_event(void *ctx, const json_t *ev)
{
	struct watch *w = ctx;

	if (!strcmp(msg_str(ev, "event", ""), "state") && !strcmp(msg_str(ev, "state", ""), "moved"))
		w->moved = true;
	if (!strcmp(msg_str(ev, "event", ""), "prediction"))
		prediction_save(w->pid, ev);
	json_t *full = json_deep_copy(ev);

	if (!strcmp(msg_str(ev, "event", ""), "done") && w->predicted)
		json_object_set(full, "predicted", w->predicted);
	if (w->report)
		report_event(w->report, full);
	w->events->emit(w->events->ctx, full);
	json_decref(full);
}

static int prepare(struct cli *c, struct work *w, struct error *e)
{
	pid_t pid = 0;
	int r = cli_target(c, &pid, e);

	if (r < 0)
		return r;
	if (!c->o.to)
		return error_say(e, EINVAL, "migrate needs --to HOST[:PORT]");
	cli_session_options(c, &w->o.session);
	r = cli_on_stall(c, &w->o.session.on_stall, e);
	if (r >= 0)
		r = cli_compress(c, &w->o.session.compress, e);
	if (r < 0)
		return r;
	w->o.post_copy_if_possible = !c->o.on_stall && !c->o.post_copy;
	w->o.time_limit_ms = (uint64_t)c->o.time_limit;
	w->o.streams = (unsigned)c->o.streams;
	w->o.session.pid = pid;
	if (c->o.dry_run)
		w->rehearsal_ms = c->o.duration ? (uint64_t)c->o.duration : 3000;
	else if (c->o.duration)
		return error_say(e, EINVAL, "--duration goes with --dry-run");
	w->o.to = c->o.to;
	w->o.link = (struct link_options){.keys_dir = c->o.keys, .insecure = c->o.insecure};
	w->o.journal_dir = rundir_path();
	w->script = (struct script){.path = c->o.action_script, .images_dir = ""};
	w->hooks = script_hooks(&w->script);
	w->o.session.hooks = w->script.path ? &w->hooks : NULL;
	return capture_check_target(pid, e);
}

/* The target is examined and followed, as by "track". */
static int rehearse(struct cli *c, struct work *w, const struct events *ev, struct error *e)
{
	struct job *j = NULL;
	int r = keeper_check(w->o.session.pid, e);

	c->display.verb = "tracked";
	c->display.where = NULL;
	if (r == 0)
		r = job_open(&j, "migrate", w->o.session.pid, ev, e);
	if (r == 0)
		r = job_run_worker(j, work, w, c->log.level, e);
	job_free(j);
	return r;
}

/* Nothing depends on it. */
static void keep_report(struct cli *c, struct report *r, const struct error *failure)
{
	struct error why = ERROR_INIT;
	const char *id;

	if (report_write(r, c->o.report_dir, failure ? failure->text : NULL, &id, &why) < 0)
		log_line(&c->log, 2, "no report: %s", why.text);
	else
		log_line(&c->log, 3, "report %s", id);
	report_free(r);
}

int verb_migrate(struct cli *c, struct error *e)
{
	cleanup_free char *where = xasprintf("to %s", c->o.to ? c->o.to : "?");
	struct work w = {0};
	struct watch watch = {.events = &c->events};
	struct events events = {.emit = on_event, .ctx = &watch};
	struct job *j = NULL;
	int r = prepare(c, &w, e);
	pid_t pid = watch.pid = w.o.session.pid;

	c->display.verb = "moved";
	c->display.where = where;
	display_target(&c->display, pid);
	if (r == 0 && w.rehearsal_ms)
		return rehearse(c, &w, &events, e);
	if (r == 0) {
		watch.predicted = prediction_find(pid);
		watch.report = report_new(c->display.program, pid, c->o.to);
		r = job_open(&j, "migrate", pid, &events, e);
	}
	if (r == 0)
		r = script_run(&w.script, "pre-dump", pid, e);
	if (r == 0)
		r = keeper_end(pid, e);
	if (r > 0)
		log_line(&c->log, 2, "the pre-dump chain of process %d ends", pid);
	if (r >= 0)
		r = job_run_worker(j, work, &w, c->log.level, e);
	if (r < 0 && j)
		r = resume_after_death(c, j, pid, watch.moved, e);
	job_free(j);
	c->display.where = NULL;
	if (watch.report)
		keep_report(c, watch.report, r < 0 ? e : NULL);
	if (r == 0)
		prediction_forget(pid);
	json_decref(watch.predicted);
	return r;
}
