/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* An engine that captures nothing, but tells what it was asked, in a file that its processes append to. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/util.h"
#include "service/chain.h"

static char fake_log[128]; /* the file */
static const char *fake_trouble =
	""; /* "fail": predump fails; "die": the worker is killed; "hang": until aborted */

static void fake_say(const char *what, const char *more)
{
	FILE *f = fopen(fake_log, "a");

	fprintf(f, "%s%s%s;", what, more ? " " : "", more ? more : "");
	fclose(f);
}

/* All that was said, malloc'ed; forgotten afterwards. */
static inline char *fake_said(void)
{
	char *text = NULL;

	if (read_file(fake_log, &text) < 0)
		text = xstrdup("");
	unlink(fake_log);
	return text;
}

struct session {
	const struct events *ev;
};

/* In place of the engine's, which is then not linked at all. */
void session_options_init(struct session_options *o)
{
	*o = (struct session_options){.backend = "auto"};
}

static int fake_open(struct session **ret, const struct session_options *o, const struct events *ev,
		     struct error *e)
{
	(void)e;
	*ret = xcalloc(1, sizeof(**ret));
	(*ret)->ev = ev;
	fake_say("open", o->backend);
	return 0;
}

static void fake_set_options(struct session *s, const struct session_options *o)
{
	(void)s;
	fake_say("options", o->backend);
}

static int fake_work(struct session *s, struct error *e)
{
	events_emit(s->ev, json_pack("{s:s,s:i,s:i}", "event", "round", "n", 1, "bytes", 4096));
	if (!strcmp(fake_trouble, "fail"))
		return error_say(e, ENOSPC, "disk full");
	if (!strcmp(fake_trouble, "die"))
		raise(SIGKILL);
	while (!strcmp(fake_trouble, "hang")) {
		if (job_check_abort(e) < 0)
			return -e->code;
		usleep(2000);
	}
	return 0;
}

static int fake_predump(struct session *s, const struct chain_request *r, const char *parent, struct error *e)
{
	(void)r;
	fake_say("predump", parent ? parent : "-");
	return fake_work(s, e);
}

static int fake_dump(struct session *s, const struct chain_request *r, const char *parent, struct error *e)
{
	fake_say(r->end == SESSION_RUN ? "dump-run" : "dump", parent ? parent : "-");
	return fake_work(s, e);
}

static void fake_close(struct session *s)
{
	fake_say("close", NULL);
	free(s);
}

static const struct chain_ops fake_ops = {fake_open, fake_set_options, fake_predump, fake_dump, fake_close};
