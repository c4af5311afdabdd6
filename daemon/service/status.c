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
		s->dirty_mib_s = msg_num(event, "dirty_mib_s", 0);
		return;
	}
	if (!strcmp(name, "sample")) { /* nothing is copied, and there is no end to come closer to */
		s->rounds = msg_int(event, "n", s->rounds + 1);
		s->total_bytes = 0;
		strcpy(s->phase, "tracking");
		return;
	}
	if (!strcmp(name, "fetch")) {
		if (json_object_get(event, "left")) {
			s->missing = msg_int(event, "total", 0);
			s->left = msg_int(event, "left", 0);
			s->arrived = msg_int(event, "arrived", 0);
			s->faults = msg_int(event, "faults", 0);
			s->p50_us = msg_num(event, "p50_us", 0);
			s->p99_us = msg_num(event, "p99_us", 0);
			s->max_us = msg_num(event, "max_us", 0);
		}
		s->broken = !json_is_true(json_object_get(event, "link"));
		strcpy(s->phase, s->broken ? "no link" : "fetching");
		return;
	}
	if (!strcmp(name, "queued")) {
		s->position = msg_int(event, "position", 0);
		strcpy(s->phase, "queued");
		return;
	}
	s->position = 0;
	if (!strcmp(name, "state") && !s->uuid[0])
		snprintf(s->uuid, sizeof(s->uuid), "%s", msg_str(event, "uuid", ""));
	if (!strcmp(name, "state"))
		name = msg_str(event, "state", name);
	snprintf(s->phase, sizeof(s->phase), "%s", name);
}

json_t *status_json(const struct job_status *s)
{
	double percent = -1; /* not known */

	if (!strcmp(s->phase, "done"))
		percent = 100;
	else if (s->missing)
		percent = 100.0 * (double)(s->missing - s->left) / (double)s->missing;
	else if (s->total_bytes > 0)
		percent = MIN(99.0, 100.0 * (double)s->bytes / (double)s->total_bytes);
	json_t *j = json_pack("{s:s,s:i,s:i,s:s,s:f,s:I,s:I,s:I,s:I,s:f,s:f}", "verb", s->verb, "target",
			      (int)s->target, "pid", (int)getpid(), "phase", s->phase, "seconds",
			      (double)(now_ns() - s->since_ns) / 1e9, "rounds", (json_int_t)s->rounds,
			      "pages", (json_int_t)s->pages, "bytes", (json_int_t)s->bytes, "total_bytes",
			      (json_int_t)s->total_bytes, "percent", percent, "left_ms", s->left_ms);

	if (s->uuid[0])
		json_object_set_new(j, "uuid", json_string(s->uuid));
	if (s->position)
		json_object_set_new(j, "position", json_integer(s->position));
	if (s->missing)
		json_object_set_new(j, "fetch",
				    json_pack("{s:I,s:I,s:I,s:f,s:f,s:f,s:b}", "total",
					      (json_int_t)s->missing, "left", (json_int_t)s->left, "faults",
					      (json_int_t)s->faults, "p50_us", s->p50_us, "p99_us", s->p99_us,
					      "max_us", s->max_us, "link", !s->broken));
	return j;
}
