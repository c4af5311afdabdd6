/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rounds without copying.  Each interval is looked at twice, after its first tenth and at its end: what a
 * program writes in a short time and in a long one are two numbers, and a migration, whose rounds get shorter
 * and shorter, needs both (converge.h).
 *
 * The first look is no interval: what is there already was not written while we watched.
 */
#include "engine/observe.h"

#include <errno.h>
#include <poll.h>
#include <string.h>

#include "base/util.h"
#include "engine/source.h"

#define SHORT_PART  10  /* of an interval */
#define TRACE       64  /* samples that a prediction may look back on */
#define PATIENCE_MS 200 /* between two looks at whether we are to stop */
#define GONE        1   /* the target has come to its end */
#define STOPPED     2   /* we are told to end */

struct observer {
	struct session *s;
	const struct observe_options *o;
	uint64_t begin, last; /* ns */
	uint64_t bandwidth;
	struct track_sample trace[TRACE];
	size_t n_trace;
	uint64_t samples;
	double dirty_ns, dirty_bytes, dirty_max; /* for the rate over all, and the highest, bytes/s */
	struct memory_use use;                   /* of the last look */
	uint64_t stopped_ns, reported;           /* of this interval: by both looks */
};

/* One that is being killed has no memory any more some time before it is a zombie. */
static bool target_ended(struct session *s)
{
	return !session_target_alive(s) || session_vanished(s->tree->procs[0]);
}

/* One look at everything, into the pages' use. 0, GONE, STOPPED or -errno. */
static int look(struct observer *ob, struct track_sample *t, struct error *e)
{
	struct session *s = ob->s;
	struct round_stats st = {0};
	uint64_t t0 = now_ns(), objects = 0;
	int r = session_collect(s, &st, e);

	for (size_t i = 0; i < s->tree->n && r >= 0; i++) {
		struct process *p = s->tree->procs[i];

		r = session_resolve(s, p, e);
		if (r >= 0 && p->data)
			ob->reported += memory_note(s->memory, p);
	}
	if (r >= 0)
		r = memory_objects_note(s->memory, &objects, e);
	ob->reported += objects;
	t->round_ns = MAX(t->round_ns, now_ns() - t0);
	t->collect_ns = MAX(t->collect_ns, st.collect_ns);
	ob->stopped_ns += st.freeze_ns;
	if (r >= 0)
		return 0;
	if (job_aborted()) {
		error_clear(e);
		return STOPPED;
	}
	if (!target_ended(s))
		return r;
	error_clear(e);
	return GONE;
}

/* 0, GONE or STOPPED. */
static int sleep_until(struct observer *ob, uint64_t when)
{
	while (!job_aborted()) {
		uint64_t now = now_ns();
		uint64_t ms = when > now ? (when - now + 999999) / 1000000 : 0;
		struct pollfd end = {ob->s->tree->procs[0]->pidfd, POLLIN, 0};

		if (poll(&end, 1, (int)MIN(ms, (uint64_t)PATIENCE_MS)) > 0 && target_ended(ob->s))
			return GONE;
		if (now_ns() >= when)
			return 0;
	}
	return STOPPED;
}

static void emit(struct observer *ob, const struct track_sample *t)
{
	struct converge_limits limits = {.max_rounds = MIN(ob->s->opt.max_rounds, SESSION_MAX_ROUNDS - 1),
					 .downtime_ns = ob->s->opt.downtime_ms * 1000000ull,
					 .fixed_ns = converge_fixed_ns(&ob->s->costs)};
	struct converge_prediction p;

	converge_predict(ob->trace, ob->n_trace, ob->bandwidth, &limits, &p);
	json_t *migration =
		json_pack("{s:f,s:s,s:i,s:I,s:f,s:f,s:b}", "mib_s", ob->bandwidth / 1048576.0, "bandwidth",
			  ob->o->bandwidth ? "given" : "measured", "rounds", (int)p.rounds, "bytes",
			  (json_int_t)p.bytes, "ms", p.ns / 1e6, "downtime_ms", p.downtime_ns / 1e6,
			  "converges", p.verdict == CONVERGE_SWITCH);

	events_emit(
		ob->s->events,
		json_pack("{s:s,s:I,s:f,s:f,s:I,s:I,s:f,s:f,s:I,s:I,s:I,s:I,s:i,s:I,s:f,s:f,s:f,s:o}",
			  "event", "sample", "n", (json_int_t)ob->samples, "seconds",
			  (ob->last - ob->begin) / 1e9, "ms", t->ns / 1e6, "memory", (json_int_t)t->memory,
			  "dirty", (json_int_t)t->dirty, "dirty_mib_s", t->dirty / 1048576.0 / (t->ns / 1e9),
			  "short_ms", t->short_ns / 1e6, "short_dirty", (json_int_t)t->short_dirty,
			  "working_set", (json_int_t)t->working_set, "reported", (json_int_t)ob->reported,
			  "untracked", (json_int_t)t->untracked, "processes", (int)ob->s->tree->n, "vmas",
			  (json_int_t)ob->use.vmas, "round_ms", t->round_ns / 1e6, "collect_ms",
			  t->collect_ns / 1e6, "stopped_ms", ob->stopped_ns / 1e6, "migration", migration));
}

static void keep(struct observer *ob, const struct track_sample *t)
{
	if (ob->n_trace == TRACE)
		memmove(ob->trace, ob->trace + 1, --ob->n_trace * sizeof(*ob->trace));
	ob->trace[ob->n_trace++] = *t;
	ob->samples++;
	ob->dirty_bytes += t->dirty;
	ob->dirty_ns += t->ns;
	ob->dirty_max = MAX(ob->dirty_max, t->dirty / (t->ns / 1e9));
}

/* 0, GONE, STOPPED or -errno. */
static int interval(struct observer *ob, struct error *e)
{
	uint64_t length = ob->o->interval_ms * 1000000, begin = ob->last;
	struct track_sample t = {0};

	ob->stopped_ns = ob->reported = 0;
	int r = sleep_until(ob, begin + length / SHORT_PART);

	if (r == 0)
		r = look(ob, &t, e);
	if (r)
		return r;
	t.short_ns = now_ns() - begin;
	memory_sum_use(ob->s->memory, ob->s->tree, &ob->use);
	t.short_dirty = ob->use.now;
	r = sleep_until(ob, begin + length);
	if (r == 0)
		r = look(ob, &t, e);
	if (r)
		return r;
	ob->last = now_ns();
	t.ns = ob->last - begin;
	memory_sum_use(ob->s->memory, ob->s->tree, &ob->use);
	t.dirty = ob->use.now;
	memory_end_interval(ob->s->memory, ob->s->tree, false);
	memory_sum_use(ob->s->memory, ob->s->tree, &ob->use);
	t.working_set = ob->use.ever;
	t.memory = ob->use.memory;
	t.untracked = ob->use.untracked;
	session_count(ob->s);
	keep(ob, &t);
	emit(ob, &t);
	return 0;
}

static bool enough(const struct observer *ob)
{
	return (ob->o->count && ob->samples >= ob->o->count) ||
	       (ob->o->duration_ms && ob->last - ob->begin >= ob->o->duration_ms * 1000000);
}

int session_observe(struct session *s, const struct observe_options *o, struct error *e)
{
	struct observer ob = {.s = s, .o = o, .bandwidth = o->bandwidth};
	struct track_sample first = {0};

	error_phase(e, "track");
	int r = ob.bandwidth ? 0 : loopback_bandwidth(&ob.bandwidth, e);

	if (r < 0)
		return r;
	ob.begin = now_ns();
	r = look(&ob, &first, e);
	memory_end_interval(s->memory, s->tree, true);
	memory_sum_use(s->memory, s->tree, &ob.use);
	if (r == 0)
		events_emit(s->events,
			    json_pack("{s:s,s:I,s:I,s:f,s:f}", "event", "armed", "memory",
				      (json_int_t)ob.use.memory, "vmas", (json_int_t)ob.use.vmas, "round_ms",
				      first.round_ns / 1e6, "collect_ms", first.collect_ns / 1e6));
	ob.begin = ob.last = now_ns();
	while (r == 0 && !enough(&ob))
		r = interval(&ob, e);
	if (r < 0)
		return r;
	memory_sum_use(s->memory, s->tree, &ob.use);
	events_emit(s->events,
		    json_pack("{s:s,s:s,s:I,s:f,s:b,s:I,s:I,s:f,s:f}", "event", "done", "verb", "track",
			      "samples", (json_int_t)ob.samples, "total_ms", (now_ns() - ob.begin) / 1e6,
			      "ended", r == GONE, "memory", (json_int_t)ob.use.memory, "working_set",
			      (json_int_t)ob.use.ever, "dirty_mib_s",
			      ob.dirty_ns > 0 ? ob.dirty_bytes / 1048576 / (ob.dirty_ns / 1e9) : 0.0,
			      "dirty_mib_s_max", ob.dirty_max / 1048576));
	return 0;
}
