/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>

#include "base/util.h"
#include "cli/capture.h"
#include "service/job.h"
#include "service/keeper.h"

static int run(struct job *j, struct chain_request *r, struct error *e)
{
	/* Without a parent it is the first of a new chain. */
	int code = r->parent ? 0 : keeper_end(r->session.pid, e);

	if (code < 0)
		return code;
	cleanup_close int keeper = keeper_connect(r->session.pid, true, &chain_engine_ops, e);

	if (keeper < 0)
		return keeper;
	code = keeper_request(keeper, r, e);
	return code < 0 ? code : job_run_peer(j, keeper, e);
}

int verb_predump(struct cli *c, struct error *e)
{
	cleanup_free char *where = xasprintf("into %s; it runs on and is tracked", c->o.images_dir);
	struct chain_request r;
	struct job *j = NULL;
	int code = capture_init(c, CHAIN_PREDUMP, &r, e);

	c->display.verb = "pre-dumped";
	c->display.where = where;
	display_target(&c->display, r.session.pid);
	if (code == 0)
		code = job_open(&j, "pre-dump", r.session.pid, &c->events, e);
	if (code == 0)
		code = script_run(&r.script, "pre-dump", r.session.pid, e);
	if (code == 0)
		code = run(j, &r, e);
	job_free(j);
	capture_deinit(&r);
	c->display.where = NULL;
	return code;
}
