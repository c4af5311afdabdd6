/* SPDX-License-Identifier: Apache-2.0 */
#include "service/status.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/util.h"
#include "service/msg.h"

void status_init(struct job_status *s, const char *verb, pid_t target)
{
	*s = (struct job_status){.target = target, .since_ns = now_ns()};
	snprintf(s->verb, sizeof(s->verb), "%s", verb);
	strcpy(s->phase, "start");
}

void status_event(struct job_status *s, const json_t *event)
{
	const char *name = msg_str(event, "event", "");

	if (!strcmp(name, "log"))
		return;
	if (!strcmp(name, "start")) {
		s->total_bytes = msg_int(event, "bytes", 0);
		s->processes = msg_int(event, "processes", 0);
		strcpy(s->phase, "rounds");
		return;
	}
	if (!strcmp(name, "round")) {
		s->rounds = msg_int(event, "n", s->rounds + 1);
		s->pages += msg_int(event, "pages", 0);
		s->bytes += msg_int(event, "bytes", 0);
		s->left_ms = msg_num(event, "left_ms", 0);
		return;
	}
	if (!strcmp(name, "sample")) { /* nothing is copied, and there is no end to come closer to */
		s->rounds = msg_int(event, "n", s->rounds + 1);
		s->total_bytes = 0;
		strcpy(s->phase, "tracking");
		return;
	}
	if (!strcmp(name, "state"))
		name = msg_str(event, "state", name);
	snprintf(s->phase, sizeof(s->phase), "%s", name);
}

json_t *status_json(const struct job_status *s)
{
	double percent = -1; /* not known */

	if (!strcmp(s->phase, "done"))
		percent = 100;
	else if (s->total_bytes > 0)
		percent = MIN(99.0, 100.0 * (double)s->bytes / (double)s->total_bytes);
	return json_pack("{s:s,s:i,s:i,s:s,s:f,s:I,s:I,s:I,s:I,s:f,s:f}", "verb", s->verb, "target",
			 (int)s->target, "pid", (int)getpid(), "phase", s->phase, "seconds",
			 (double)(now_ns() - s->since_ns) / 1e9, "rounds", (json_int_t)s->rounds, "pages",
			 (json_int_t)s->pages, "bytes", (json_int_t)s->bytes, "total_bytes",
			 (json_int_t)s->total_bytes, "percent", percent, "left_ms", s->left_ms);
}
