/* SPDX-License-Identifier: Apache-2.0 */
/* ferry track: how a program uses its memory, and how a migration of it would
 * go. The target is only followed. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>

#include "base/util.h"
#include "cli/capture.h"
#include "cli/svg.h"
#include "engine/observe.h"
#include "service/job.h"
#include "service/keeper.h"
#include "service/msg.h"

struct tracking {
	struct cli *c;
	struct session_options session;
	struct observe_options observe;
	struct events events; /* what the worker says, to us and on to the display */
	struct svg_sample *samples;
	size_t n, cap;
	char *part; /* of the plot; NULL: none */
	int plot;
	char backend[32], bandwidth[96];
};

/* --- in the worker -------------------------------------------------------------------------------- */

static int work(void *ctx, int sock, const struct events *ev, struct error *e)
{
	struct tracking *t = ctx;
	struct session *s = NULL;

	(void)sock;
	int r = session_open(&s, &t->session, ev, e);

	if (r >= 0)
		r = session_observe(s, &t->observe, e);
	session_close(s);
	return r;
}

/* --- the plot ------------------------------------------------------------------------------------- */

/* Early: a name that cannot be written is told before hours of measuring. */
static int open_plot(struct tracking *t, const char *name, struct error *e)
{
	t->plot = -1;
	if (!name)
		return 0;
	t->part = xasprintf("%s.part", name);
	t->plot = open(t->part, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	if (t->plot >= 0)
		return 0;
	int r = error_set(e, errno, "cannot write the plot %s", name);

	free(TAKE_PTR(t->part));
	return r;
}

static int write_plot(struct tracking *t, const char *name, struct error *e)
{
	const struct cli *c = t->c;
	char every[32];
	cleanup_free char *title = xasprintf("%s: memory written", c->display.program);
	cleanup_free char *note = xasprintf("followed by %s, every %s; migration predicted at %s", t->backend,
					    display_ms(t->observe.interval_ms, every), t->bandwidth);
	const struct svg_plot p = {title, note, c->o.max_downtime, t->samples, t->n};
	FILE *f = fdopen(t->plot, "w");

	if (!f)
		return error_set(e, errno, "cannot write the plot %s", name);
	t->plot = -1;
	bool good = svg_write(f, &p);

	good = fclose(f) == 0 && good;
	if (!good || rename(t->part, name) < 0)
		return error_set(e, errno, "cannot write the plot %s", name);
	free(TAKE_PTR(t->part));
	return 0;
}

static void drop_plot(struct tracking *t)
{
	if (t->plot >= 0)
		close(t->plot);
	if (t->part)
		unlink(t->part);
	free(t->part);
	free(t->samples);
}

/* --- what the worker says ------------------------------------------------------------------------- */

static void keep_sample(struct tracking *t, const json_t *ev)
{
	const json_t *p = json_object_get(ev, "migration");

	if (t->n == t->cap) {
		t->cap = t->cap ? t->cap * 2 : 256;
		t->samples = xrealloc(t->samples, t->cap * sizeof(*t->samples));
	}
	t->samples[t->n++] = (struct svg_sample){
		.end = msg_num(ev, "seconds", 0),
		.length = msg_num(ev, "ms", 0) / 1000,
		.dirty = msg_num(ev, "dirty", 0) / 1048576,
		.working_set = msg_num(ev, "working_set", 0) / 1048576,
		.rounds = msg_num(p, "rounds", 0),
		.downtime_ms = msg_num(p, "downtime_ms", 0),
	};
	snprintf(t->bandwidth, sizeof(t->bandwidth), "%.0f MiB/s (%s)", msg_num(p, "mib_s", 0),
		 strcmp(msg_str(p, "bandwidth", ""), "measured") ? "as given"
								 : "measured over the loopback here");
}

static void on_event(void *ctx, const json_t *ev)
{
	struct tracking *t = ctx;
	const char *name = msg_str(ev, "event", "");

	if (!strcmp(name, "start"))
		snprintf(t->backend, sizeof(t->backend), "%s", msg_str(ev, "backend", "?"));
	if (!strcmp(name, "sample") && t->part)
		keep_sample(t, ev);
	t->c->events.emit(t->c->events.ctx, ev);
	/* Nobody reads any more (a pipe into head): as if it had been interrupted. */
	if (ferror(stdout))
		kill(getpid(), SIGTERM);
}

/* --- the verb ------------------------------------------------------------------------------------- */

static int prepare(struct tracking *t, struct error *e)
{
	struct cli *c = t->c;
	pid_t pid = 0;
	int r = cli_target(c, &pid, e);

	if (r < 0)
		return r;
	if (!strcmp(c->o.backend, "none"))
		return error_say(e, EINVAL, "track needs a backend");
	cli_session_options(c, &t->session);
	t->session.pid = pid;
	t->session.observe = true;
	t->session.max_bandwidth = 0;
	t->observe = (struct observe_options){.interval_ms = c->o.interval,
					      .count = c->o.count,
					      .duration_ms = c->o.duration,
					      .bandwidth = c->o.max_bandwidth};
	r = capture_check_target(pid, e);
	if (r == 0)
		r = keeper_check(pid, e);
	return r == 0 ? open_plot(t, c->o.svg, e) : r;
}

int verb_track(struct cli *c, struct error *e)
{
	struct tracking t = {.c = c, .plot = -1};
	struct job *j = NULL;
	int r = prepare(&t, e);

	t.events = (struct events){.emit = on_event, .ctx = &t};
	c->display.verb = "tracked";
	if (r == 0)
		display_target(&c->display, t.session.pid);
	if (r == 0)
		r = job_open(&j, "track", t.session.pid, &t.events, e);
	if (r == 0)
		r = job_run_worker(j, work, &t, c->log.level, e);
	job_free(j);
	/* What was seen until something failed is worth having, too. */
	if (t.part && (r == 0 || t.n)) {
		struct error plot = ERROR_INIT;
		int p = write_plot(&t, c->o.svg, r < 0 ? &plot : e);

		r = r < 0 ? r : p;
	}
	drop_plot(&t);
	return r;
}
