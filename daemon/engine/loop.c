/* SPDX-License-Identifier: Apache-2.0 */
/* Rounds that converge: what converge.c decides is done here. */
#include <errno.h>
#include <sys/stat.h>

#include "base/util.h"
#include "engine/source.h"
#include "engine/throttle.h"

void session_note_stop(struct session *s, uint64_t ns)
{
	struct converge_costs *c = &s->costs;

	c->stop_ns = (c->stop_ns * s->n_stops + ns) / (s->n_stops + 1);
	s->n_stops++;
}

void session_full_speed(struct session *s)
{
	if (s->throttle)
		throttle_lift(s->throttle);
	/* Where its processes are is looked at in the freeze: they are at home again by then. */
	if (s->opt.state.cgroups != CGROUPS_IGNORE)
		throttle_free(TAKE_PTR(s->throttle));
}

void session_count(struct session *s)
{
	struct converge_costs *c = &s->costs;

	c->tasks = c->fds = 0;
	for (size_t i = 0; i < s->tree->n; i++) {
		cleanup_free char *path = xasprintf("/proc/%d/fd", process_living(s->tree->procs[i]));
		struct stat st;

		c->tasks += (unsigned)s->tree->procs[i]->n_threads;
		if (stat(path, &st) == 0)
			c->fds += (unsigned)st.st_size; /* their number is the size of the directory */
	}
}

static int one_round(struct session *s, struct stream_out *out, bool layout,
		     int (*ack)(void *ctx, unsigned round, struct error *e), void *ctx, struct error *e)
{
	uint64_t t0 = now_ns();
	int r = session_round(s, out, layout, e);

	if (r >= 0 && ack)
		r = ack(ctx, s->n_rounds, e);
	if (r >= 0)
		r = job_check_abort(e);
	if (r < 0)
		return r;
	uint64_t ns = s->rounds[s->n_rounds - 1].ns = now_ns() - t0;

	/* Measured with the first words, when the other side had things to set up: no way there and back
	 * takes longer than a round, which has one. */
	s->costs.rtt_ns = MIN(s->costs.rtt_ns, ns);
	return r;
}

/* A step slower. Where that cannot be done the freeze comes as if told so; -errno only when told to stop. */
static void slow_down(struct session *s, struct converge_policy *p)
{
	struct error why = ERROR_INIT;
	double full = s->throttle ? throttle_full(s->throttle) : 0;
	int r = s->throttle ? 0 : throttle_new(&s->throttle, s->tree, !s->opt.freeze_cgroup, &why);

	if (r >= 0 && !full) {
		full = throttle_full(s->throttle);
		p->cpus = full;
	}
	if (r >= 0) {
		p->cpus = converge_throttle(s->rounds, s->n_rounds, p);
		r = throttle_set(s->throttle, p->cpus, &why);
	}
	if (r < 0) {
		events_log(s->events, 2, "the target cannot be slowed down: %s", why.text);
		p->cpus = 0;
		return;
	}
	p->throttled = true;
	p->since = s->n_rounds;
	events_emit(s->events,
		    json_pack("{s:s,s:f,s:f,s:s}", "event", "throttle", "cpus", p->cpus, "percent",
			      100 * p->cpus / full, "by", throttle_freezes(s->throttle) ? "freezer" : "cpu"));
}

/* Pages are no part of the downtime then, but for those that are never left behind. */
static bool post_copy_helps(const struct session *s)
{
	double left = (double)converge_left_ns(s->rounds, s->n_rounds, s->costs.rtt_ns) * s->shared_part +
		      (double)s->fixed_ns;

	if (s->opt.on_stall != ON_STALL_POSTCOPY)
		return false;
	if (s->memory->userfaults || s->shared_part > 0.5) {
		const char *why =
			s->memory->userfaults ? "the program has userfaultfds of its own"
			: s->opt.leave_shared
				? "what the program writes is shared memory that others can reach by a "
				  "name or a descriptor, which goes along"
				: "what the program writes is shared memory, which goes along unless "
				  "--on-stall postcopy is given";

		events_log(s->events, 2, "post-copy would not help: %s", why);
		return false;
	}
	return !s->opt.max_downtime_ms || left <= s->opt.max_downtime_ms * 1e6;
}

static int give_up(struct session *s, const struct converge_policy *p, struct error *e)
{
	double ms = (converge_frozen_ns(s->rounds, s->n_rounds, &p->limits) + p->limits.fixed_ns) / 1e6;

	if (p->max_downtime_ns && ms * 1e6 > p->max_downtime_ns)
		return error_say(e, ETIMEDOUT,
				 "the target would be stopped for about %.0f ms, longer than --max-downtime "
				 "(%u ms); it runs on",
				 ms, s->opt.max_downtime_ms);
	return error_say(e, ETIMEDOUT,
			 "the target writes too fast: it would be stopped for about %.0f ms, more than "
			 "--downtime (%u ms); it runs on (see --on-stall)",
			 ms, s->opt.downtime_ms);
}

int session_rounds(struct session *s, struct stream_out *out, bool layout,
		   int (*ack)(void *ctx, unsigned round, struct error *e), void *ctx, struct error *e)
{
	struct converge_policy p = {
		.limits = {.max_rounds = MIN(s->opt.max_rounds, SESSION_MAX_ROUNDS - 1),
			   .downtime_ns = s->opt.downtime_ms * 1000000ull},
		.max_downtime_ns = s->opt.max_downtime_ms * 1000000ull,
		.on_stall = s->opt.on_stall,
		.cpus = 1, /* not known before it is needed */
	};
	enum converge_step step = STEP_ROUND;

	s->n_rounds = 0;
	s->memory->may_leave = s->opt.leave_shared;
	session_count(s);
	/* Without tracking a round is worth nothing; a migration still sends one with the layout, so that
	 * skeletons are there. */
	while (step == STEP_ROUND) {
		int r = one_round(s, out, layout, ack, ctx, e);

		if (r < 0)
			return r;
		s->post_copy = s->opt.post_copy_after &&
			       (s->n_rounds >= s->opt.post_copy_after || !s->memory->backend.ops);
		if (s->post_copy || !s->memory->backend.ops)
			return 0;
		s->fixed_ns = p.limits.fixed_ns = converge_fixed_ns(&s->costs);
		p.limits.rtt_ns = s->costs.rtt_ns;
		p.limits.stop_factor = stream_out_stop_factor(out);
		while ((step = converge_step(s->rounds, s->n_rounds, &p)) == STEP_THROTTLE) {
			slow_down(s, &p);
			if (p.cpus)
				break;
		}
		if (step == STEP_THROTTLE)
			step = STEP_ROUND;
	}
	if (step != STEP_SWITCH && post_copy_helps(s)) {
		s->post_copy = true;
		return 0;
	}
	if (step == STEP_ABORT)
		return give_up(s, &p, e);
	if (step == STEP_OVER)
		events_log(s->events, 2, "rounds do not get smaller: about %.0f ms of downtime",
			   (converge_frozen_ns(s->rounds, s->n_rounds, &p.limits) + s->fixed_ns) / 1e6);
	return 0;
}
