/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/converge.h"

#include <math.h>

#include "base/util.h"

/* What counts as nothing: a freeze costs this much anyway, so shorter rounds gain nothing. */
#define ENOUGH_NS 1000000u

/*
 * What the last round took beside the wait for its answer, which is no time that pages need and is in
 * fixed_ns already. Over a long way that is nearly all of a small round.  @rtt_ns may have been measured too
 * long: no round is shorter than the way there and back, and none is faster than the fastest so far was with
 * its answer.
 */
static double sending_ns(const struct round_record *r, size_t n, uint64_t rtt_ns)
{
	const struct round_record *last = &r[n - 1];
	double fastest = 0;

	for (size_t i = 0; i < n; i++) {
		rtt_ns = rtt_ns < r[i].ns ? rtt_ns : r[i].ns;
		fastest = r[i].ns ? fmax(fastest, (double)r[i].bytes / r[i].ns) : fastest;
	}
	return fmax(last->ns - rtt_ns, fastest > 0 ? last->bytes / fastest : 0);
}

uint64_t converge_left_ns(const struct round_record *r, size_t n, uint64_t rtt_ns)
{
	if (!n)
		return UINT64_MAX;
	const struct round_record *last = &r[n - 1];

	if (n == 1 || !last->ns)
		return last->ns;
	/* Dirty rate: the last round sent what was written during the one before it. */
	double rate = (double)last->bytes / (r[n - 2].ns ? r[n - 2].ns : 1);
	double sending = sending_ns(r, n, rtt_ns);
	double bandwidth = sending > 0 ? last->bytes / sending : 0;
	double left = bandwidth > 0 ? rate * last->ns / bandwidth : 0;

	return left;
}

uint64_t converge_frozen_ns(const struct round_record *r, size_t n, const struct converge_limits *l)
{
	uint64_t left = converge_left_ns(r, n, l->rtt_ns);

	return n && l->stop_factor > 0 ? (uint64_t)((double)left * l->stop_factor) : left;
}

/* Was round @i clearly smaller than all before it? */
static bool smaller(const struct round_record *r, size_t i)
{
	for (size_t k = 0; k < i; k++)
		if (r[i].bytes * 10 >= r[k].bytes * 8)
			return false;
	return true;
}

/*
 * Rounds that do not get smaller any more still differ: what else ran on the machine, or on the link, made
 * one longer, and so the next one larger.  The freeze takes as long as the round before it left to do, so a
 * few more are made until one is about as good as the best of them.
 */
#define MORE_ROUNDS 4

static bool is_good_moment(const struct round_record *r, size_t n, uint64_t rtt_ns)
{
	uint64_t left = converge_left_ns(r, n, rtt_ns), best = left;
	size_t level = 1;

	for (size_t i = n - 1; i > 1 && !smaller(r, i - 1); i--, level++)
		best = MIN(best, converge_left_ns(r, i, rtt_ns));
	return level >= 2 + MORE_ROUNDS || left - best <= ENOUGH_NS || left <= best + best / 4;
}

enum converge converge_decide(const struct round_record *r, size_t n, const struct converge_limits *l)
{
	if (!n)
		return CONVERGE_ROUND;
	uint64_t left = converge_frozen_ns(r, n, l);

	if (n >= 2 && left <= ENOUGH_NS)
		return CONVERGE_SWITCH;
	if (n >= l->max_rounds)
		return left + l->fixed_ns <= l->downtime_ns ? CONVERGE_SWITCH : CONVERGE_STALLED;
	/* Two rounds that were not clearly smaller than the smallest before them: the next will not be
	 * either. (Not: than the one before. Where little is written, the sizes go up and down.) */
	if (n >= 3 && !smaller(r, n - 1) && !smaller(r, n - 2) && is_good_moment(r, n, l->rtt_ns))
		return left + l->fixed_ns <= l->downtime_ns ? CONVERGE_SWITCH : CONVERGE_STALLED;
	return CONVERGE_ROUND;
}

/* --- what to do --------------------------------------------------------------------------------------- */

/*
 * A stop of all tasks takes about as long as that of one, as they are asked at once, plus a little for each
 * that is waited for.  State: what was read warm is read again (less of it), and what only the tasks
 * themselves can tell comes in one batch for each; each descriptor is looked at here and made there.
 * The link is crossed there and back twice: FINAL and READY, COMMIT and RUNNING.  Compared with what
 * migrations then took: docs/benchmarks.md.
 */
#define TASK_NS 40000u
#define FD_NS   8000u
#define BASE_NS 1500000u

uint64_t converge_fixed_ns(const struct converge_costs *c)
{
	return BASE_NS + c->stop_ns + c->tasks * (uint64_t)TASK_NS + c->fds * (uint64_t)FD_NS + c->state_ns +
	       c->swap_ns + 2 * c->rtt_ns;
}

enum converge_step converge_step(const struct round_record *r, size_t n, const struct converge_policy *p)
{
	/* One round from before the slow-down is kept: its end is the beginning of what is now. */
	size_t skip = p->since > 1 && p->since <= n ? p->since - 1 : 0;
	struct converge_limits limits = p->limits;

	limits.max_rounds = limits.max_rounds > skip ? limits.max_rounds - skip : 1;
	enum converge c = converge_decide(r + skip, n - skip, &limits);
	uint64_t total = converge_frozen_ns(r + skip, n - skip, &limits);

	total = total > UINT64_MAX - p->limits.fixed_ns ? UINT64_MAX : total + p->limits.fixed_ns;
	/* A target that is being slowed down is not kept so for what it would gain. */
	if (p->throttled && n - skip >= 2 && total <= p->limits.downtime_ns)
		c = CONVERGE_SWITCH;
	if (c == CONVERGE_ROUND)
		return STEP_ROUND;
	bool too_long = p->max_downtime_ns && total > p->max_downtime_ns;

	if (c == CONVERGE_SWITCH)
		return too_long ? STEP_ABORT : STEP_SWITCH;
	if (p->on_stall == ON_STALL_ABORT)
		return STEP_ABORT;
	if (p->on_stall == ON_STALL_THROTTLE && n < p->limits.max_rounds && p->cpus > CONVERGE_MIN_CPUS)
		return STEP_THROTTLE;
	return too_long ? STEP_ABORT : STEP_OVER;
}

/* What is dirty in the end grows with how fast it is written; how much slower it has to be is known, but
 * programs change: never less than a fifth slower, nor to less than a third at once. */
double converge_throttle(const struct round_record *r, size_t n, const struct converge_policy *p)
{
	size_t skip = p->since > 1 && p->since <= n ? p->since - 1 : 0;
	double left = converge_frozen_ns(r + skip, n - skip, &p->limits);
	double room =
		p->limits.downtime_ns > p->limits.fixed_ns ? p->limits.downtime_ns - p->limits.fixed_ns : 0;
	double factor = left > 0 ? 0.8 * room / left : 0.8;

	factor = factor < 1.0 / 3 ? 1.0 / 3 : factor > 0.8 ? 0.8 : factor;
	return p->cpus * factor < CONVERGE_MIN_CPUS ? CONVERGE_MIN_CPUS : p->cpus * factor;
}

/* --- prediction ------------------------------------------------------------------------------------ */

#define RECENT     16 /* intervals that count: programs change */
#define MAX_ROUNDS 64

/*
 * How many pages are written in a time grows more slowly than the time: some are written again and again.
 * Between the two times that were looked at, and beyond them, a power law is taken: t^1 for a program that
 * writes ever new pages, t^0 for one that writes the same ones all the time.
 */
uint64_t converge_written(const struct track_sample *t, size_t n, uint64_t ns)
{
	size_t first = n > RECENT ? n - RECENT : 0;
	double lng = 0, lng_ns = 0, sht = 0, sht_ns = 0, trace_ns = 0;

	if (!n)
		return 0;
	for (size_t i = 0; i < n; i++)
		trace_ns += t[i].ns;
	for (size_t i = first; i < n; i++) {
		lng += t[i].dirty;
		lng_ns += t[i].ns;
		sht += t[i].short_dirty;
		sht_ns += t[i].short_ns;
	}
	double count = n - first, a = 1;

	if (lng <= 0 || lng_ns <= 0)
		return 0;
	if (sht > 0 && sht_ns > 0 && sht_ns < lng_ns)
		a = log(lng / sht) / log(lng_ns / sht_ns);
	a = a < 0 ? 0 : a > 1 ? 1 : a;
	double written = lng / count * pow(ns / (lng_ns / count), a);
	double most = ns <= trace_ns ? t[n - 1].working_set : t[n - 1].memory;

	return written < most ? written : most;
}

void converge_predict(const struct track_sample *t, size_t n, uint64_t bandwidth,
		      const struct converge_limits *l, struct converge_prediction *ret)
{
	const struct track_sample *now = &t[n - 1];
	struct converge_limits limits = *l;
	struct round_record r[MAX_ROUNDS];
	double speed = bandwidth ? bandwidth : 1;
	uint64_t bytes = now->memory;
	size_t k = 0;

	*ret = (struct converge_prediction){.verdict = CONVERGE_ROUND};
	if (limits.max_rounds > MAX_ROUNDS)
		limits.max_rounds = MAX_ROUNDS;
	while (ret->verdict == CONVERGE_ROUND) {
		r[k] = (struct round_record){bytes, bytes / speed * 1e9 + now->round_ns};
		ret->bytes += bytes;
		ret->ns += r[k].ns;
		bytes = converge_written(t, n, r[k++].ns);
		ret->verdict = k == MAX_ROUNDS ? CONVERGE_STALLED : converge_decide(r, k, &limits);
	}
	ret->rounds = k;
	ret->downtime_ns = (bytes + now->untracked) / speed * 1e9 + now->collect_ns + l->fixed_ns;
	ret->verdict = ret->downtime_ns > l->downtime_ns ? CONVERGE_STALLED : CONVERGE_SWITCH;
}
