/* SPDX-License-Identifier: Apache-2.0 */
#include "service/admission.h"

#include <errno.h>
#include <poll.h>
#include <string.h>

#include "base/util.h"
#include "service/msg.h"

#define TELL_MS 3000 /* the source waits for 10 s */

/* --- the daemon's side ----------------------------------------------------------------------------- */

static unsigned count(enum admission state, applicant_fn of, void *ctx, size_t n)
{
	unsigned sum = 0;

	for (size_t i = 0; i < n; i++) {
		const struct applicant *a = of(ctx, i);

		sum += a && a->state == state;
	}
	return sum;
}

bool admission_ask(struct applicant *a, const struct admission_limits *l, applicant_fn of, void *ctx,
		   size_t n)
{
	static uint64_t tickets;

	if (a->state != ADMISSION_NONE)
		return true;
	if (count(ADMISSION_LET_IN, of, ctx, n) >= l->running &&
	    count(ADMISSION_QUEUED, of, ctx, n) >= l->queued)
		return false;
	*a = (struct applicant){.state = ADMISSION_QUEUED, .ticket = ++tickets};
	return true;
}

static unsigned position(const struct applicant *a, applicant_fn of, void *ctx, size_t n)
{
	unsigned before = 0;

	for (size_t i = 0; i < n; i++) {
		const struct applicant *b = of(ctx, i);

		before += b && b->state == ADMISSION_QUEUED && b->ticket < a->ticket;
	}
	return before + 1;
}

void admission_update(const struct admission_limits *l, applicant_fn of, void *ctx, size_t n,
		      void (*tell)(void *ctx, size_t i, unsigned position))
{
	unsigned running = count(ADMISSION_LET_IN, of, ctx, n),
		 room = l->running > running ? l->running - running : 0;

	/* Places first: letting in changes them. */
	for (size_t i = 0; i < n; i++) {
		struct applicant *a = of(ctx, i);
		unsigned now = a && a->state == ADMISSION_QUEUED ? position(a, of, ctx, n) : 0;

		if (!now)
			continue;
		now = now > room ? now - room : 0;
		if (now && now != a->position)
			tell(ctx, i, now);
		a->position = now;
	}
	for (size_t i = 0; i < n; i++) {
		struct applicant *a = of(ctx, i);

		if (!a || a->state != ADMISSION_QUEUED || a->position)
			continue;
		a->state = ADMISSION_LET_IN;
		tell(ctx, i, 0);
	}
}

/* --- the worker's side ----------------------------------------------------------------------------- */

static int ask(struct admission_door *d, struct error *e)
{
	json_t *m = json_pack("{s:s}", "event", "asks");
	int r = msg_send(d->sock, m, NULL, 0, false);

	json_decref(m);
	d->asked = true;
	return r < 0 ? error_set(e, -r, "ask ferryd whether the migration may begin") : 0;
}

static int hear(struct admission_door *d, struct error *e)
{
	json_t *m = NULL;
	int r = msg_recv(d->sock, &m, NULL);

	if (r != 1)
		return error_say(e, ECANCELED, "ferryd has ended");
	const char *refused = msg_str(m, "refused", "");

	if (*refused)
		r = error_say(e, EBUSY, "%s", refused);
	else
		r = d->position = (int)msg_int(m, "position", 0);
	json_decref(m);
	return r;
}

int admission_wait(void *door, struct error *e)
{
	struct admission_door *d = door;
	struct pollfd p = {.fd = d->sock, .events = POLLIN};
	int r = d->asked ? 0 : ask(d, e);

	if (r < 0)
		return r;
	r = poll(&p, 1, d->position ? TELL_MS : -1);
	if (job_aborted())
		return job_check_abort(e);
	return r > 0 ? hear(d, e) : d->position;
}
