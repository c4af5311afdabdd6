/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>

#include "base/util.h"
#include "cli/capture.h"
#include "service/job.h"
#include "service/keeper.h"
#include "service/msg.h"

/* In the worker: a chain of one image. */
static int work(void *ctx, int sock, const struct events *ev, struct error *e)
{
	struct chain chain = {.ops = &chain_engine_ops};
	bool anew;

	(void)sock;
	return chain_run(&chain, ctx, ev, &anew, e);
}

/* A parent is only of use to the keeper that knows what was written since. */
static int run(struct cli *c, struct job *j, struct chain_request *r, struct error *e)
{
	pid_t pid = r->session.pid;
	cleanup_close int keeper = -1;

	if (r->parent) {
		keeper = keeper_connect(pid, false, &chain_engine_ops, e);
		if (keeper < 0 && error_is(e))
			return -e->code;
	} else {
		int ended = keeper_end(pid, e);

		if (ended < 0)
			return ended;
		if (ended)
			log_line(&c->log, 2, "the pre-dump chain of process %d ends: this is a full image",
				 pid);
	}
	if (keeper < 0)
		return job_run_worker(j, work, r, c->log.level, e);
	int code = keeper_request(keeper, r, e);

	return code < 0 ? code : job_run_peer(j, keeper, e);
}

/* Ready to serve: said to --status-fd by us, as the worker has no say in that. */
static void on_event(void *ctx, const json_t *ev)
{
	struct cli *c = ctx;
	struct error trouble = ERROR_INIT;

	if (!strcmp(msg_str(ev, "event", ""), "serving") && cli_tell_ready(c, &trouble) < 0)
		log_line(&c->log, 2, "%s", trouble.text);
	c->events.emit(c->events.ctx, ev);
}

int verb_dump(struct cli *c, struct error *e)
{
	struct events events = {.emit = on_event, .ctx = c};
	cleanup_free char *where = xasprintf("into %s", c->o.images_dir);
	struct chain_request r;
	struct job *j = NULL;
	int code = capture_init(c, CHAIN_DUMP, &r, e);

	c->display.verb = "dumped";
	c->display.where = where;
	display_target(&c->display, r.session.pid);
	if (code == 0)
		code = job_open(&j, "dump", r.session.pid, &events, e);
	if (code == 0)
		code = script_run(&r.script, "pre-dump", r.session.pid, e);
	if (code == 0)
		code = run(c, j, &r, e);
	job_free(j);
	capture_deinit(&r);
	c->display.where = NULL;
	return code;
}
