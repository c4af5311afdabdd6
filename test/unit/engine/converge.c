/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "engine/converge.h"

#define MS  1000000ull
#define MIB (1ull << 20)

static const struct converge_limits limits = {.max_rounds = 12, .downtime_ns = 50 * MS, .fixed_ns = 5 * MS};

/* Play rounds against a program that writes @dirty bytes per second over a link of @bandwidth, until a
 * decision. */
static enum converge play(uint64_t size, double dirty, double bandwidth, size_t *ret_rounds)
{
	struct round_record r[64];
	double bytes = size;
	size_t n = 0;

	for (;;) {
		r[n] = (struct round_record){(uint64_t)bytes, (uint64_t)(bytes / bandwidth * 1e9) + 200000};
		bytes = dirty * r[n].ns / 1e9;
		if (bytes > size)
			bytes = size;
		n++;
		enum converge c = converge_decide(r, n, &limits);

		if (c != CONVERGE_ROUND || n == 64) {
			*ret_rounds = n;
			return c;
		}
	}
}

static void test_nothing_known(void **state)
{
	(void)state;
	assert_int_equal(converge_decide(NULL, 0, &limits), CONVERGE_ROUND);
	assert_true(converge_left_ns(NULL, 0, 0) == UINT64_MAX);
}

static void test_idle_program(void **state)
{
	size_t n;

	(void)state;
	assert_int_equal(play(1024 * MIB, 0, 500. * MIB, &n), CONVERGE_SWITCH);
	assert_int_equal(n, 2);
}

static void test_converges(void **state)
{
	size_t n;

	(void)state;
	assert_int_equal(play(1024 * MIB, 50. * MIB, 500. * MIB, &n), CONVERGE_SWITCH);
	assert_in_range(n, 3, 6);
	/* Four times the memory costs rounds, not another decision. */
	assert_int_equal(play(4096 * MIB, 50. * MIB, 500. * MIB, &n), CONVERGE_SWITCH);
	assert_in_range(n, 3, 7);
}

static void test_stalls(void **state)
{
	size_t n;

	(void)state;
	assert_int_equal(play(1024 * MIB, 2000. * MIB, 500. * MIB, &n), CONVERGE_STALLED);
	assert_in_range(n, 3, 5);
}

/* A small working set that is written all the time does not shrink, but fits into the budget. */
/* 121 processes that write nearly nothing, on a busy machine: looking at them takes 3 s, whatever is sent. */
static void test_sizes_go_up_and_down(void **state)
{
	(void)state;
	static const unsigned pages[] = {31637, 51, 10, 4, 29, 16, 31, 22, 28};
	struct round_record r[9];

	for (size_t n = 1; n <= 9; n++) {
		r[n - 1] = (struct round_record){pages[n - 1] * 4096ull, 3000 * MS};
		enum converge c = converge_decide(r, n, &limits);

		assert_int_equal(c, n < 6 ? CONVERGE_ROUND : CONVERGE_STALLED);
	}
}

static void test_small_hot_set(void **state)
{
	const struct round_record r[] = {
		{1024 * MIB, 2000 * MS}, {8 * MIB, 16 * MS}, {8 * MIB, 16 * MS}, {8 * MIB, 16 * MS}};

	(void)state;
	assert_int_equal(converge_decide(r, 4, &limits), CONVERGE_SWITCH);
}

/* Rounds of the same size; during one of them the machine did something else, and the next had more to do. */
static void test_good_moment(void **state)
{
	const struct converge_limits many = {.max_rounds = 30, .downtime_ns = 50 * MS, .fixed_ns = 5 * MS};
	struct round_record r[12] = {{1024 * MIB, 2000 * MS}, {8 * MIB, 20 * MS}, {2 * MIB, 10 * MS},
				     {2 * MIB, 10 * MS},      {2 * MIB, 30 * MS}, {6 * MIB, 30 * MS}};

	(void)state;
	assert_int_equal(converge_decide(r, 5, &many), CONVERGE_ROUND);
	assert_int_equal(converge_decide(r, 6, &many), CONVERGE_ROUND);
	r[6] = (struct round_record){2 * MIB, 10 * MS};
	assert_int_equal(converge_decide(r, 7, &many), CONVERGE_SWITCH);
	/* It does not come again: it is not waited for for ever. */
	for (size_t i = 6; i < 9; i++)
		r[i] = (struct round_record){6 * MIB, 30 * MS};
	assert_int_equal(converge_decide(r, 8, &many), CONVERGE_ROUND);
	assert_int_equal(converge_decide(r, 9, &many), CONVERGE_SWITCH);
}

static void test_max_rounds(void **state)
{
	struct round_record r[12];
	uint64_t bytes = 1024 * MIB;

	(void)state;
	/* Shrinks slowly: by a third each round. */
	for (size_t i = 0; i < 12; i++, bytes = bytes * 2 / 3)
		r[i] = (struct round_record){bytes, bytes / MIB * 2 * MS};
	assert_int_equal(converge_decide(r, 3, &limits), CONVERGE_ROUND);
	assert_int_equal(converge_decide(r, 11, &limits), CONVERGE_ROUND);
	assert_int_not_equal(converge_decide(r, 12, &limits), CONVERGE_ROUND);
}

static void test_left(void **state)
{
	const struct round_record r[] = {{100 * MIB, 1000 * MS}, {10 * MIB, 100 * MS}};

	(void)state;
	/* 10 MiB were written in 1000 ms; in the 100 ms of round two another 1 MiB, which takes 10 ms. */
	assert_in_range(converge_left_ns(r, 2, 0), 9 * MS, 11 * MS);
}

/* A program that writes 2 MiB/s over 25 MiB/s, 20 ms there and back: nearly all of a small round is the wait
 * for its answer, and that is no time that pages will need. */
static void test_long_way(void **state)
{
	static const struct round_record r[] = {
		{100 * MIB, 4020 * MS}, {8 * MIB, 340 * MS}, {MIB * 7 / 10, 48 * MS}, {100 << 10, 24 * MS},
		{50 << 10, 22 * MS},    {46 << 10, 22 * MS}, {46 << 10, 22 * MS},
	};
	struct converge_limits l = {
		.max_rounds = 30, .downtime_ns = 50 * MS, .fixed_ns = 43 * MS, .rtt_ns = 20 * MS};

	(void)state;
	assert_int_equal(converge_decide(r, 6, &l), CONVERGE_ROUND);
	assert_int_equal(converge_decide(r, 7, &l), CONVERGE_SWITCH);
	assert_in_range(converge_left_ns(r, 7, l.rtt_ns), MS, 3 * MS);
	l.rtt_ns = 0;
	assert_int_equal(converge_decide(r, 7, &l), CONVERGE_STALLED);
	/* Measured too long: pages do not become faster than they were seen to be. */
	assert_in_range(converge_left_ns(r, 3, 300 * MS), 3 * MS, 5 * MS);
	l.rtt_ns = 300 * MS;
	assert_in_range(converge_left_ns(r, 7, l.rtt_ns), MS, 3 * MS);
}

/* --- what to do ------------------------------------------------------------------------------------ */

static struct converge_policy policy(enum on_stall on_stall)
{
	return (struct converge_policy){.limits = limits, .on_stall = on_stall, .cpus = 1};
}

static const struct round_record stalled[] = {
	{1024 * MIB, 2000 * MS}, {700 * MIB, 1400 * MS}, {690 * MIB, 1380 * MS}, {690 * MIB, 1380 * MS}};
static const struct round_record converged[] = {{1024 * MIB, 2000 * MS}, {10 * MIB, 20 * MS}, {0, MS / 10}};

static void test_step_stalled(void **state)
{
	struct converge_policy p = policy(ON_STALL_STOP);

	(void)state;
	assert_int_equal(converge_step(NULL, 0, &p), STEP_ROUND);
	assert_int_equal(converge_step(stalled, 2, &p), STEP_ROUND);
	assert_int_equal(converge_step(stalled, 4, &p), STEP_OVER);
	p = policy(ON_STALL_ABORT);
	assert_int_equal(converge_step(stalled, 4, &p), STEP_ABORT);
	p = policy(ON_STALL_THROTTLE);
	assert_int_equal(converge_step(stalled, 4, &p), STEP_THROTTLE);
	/* It cannot be slowed down, or not more, or the rounds are used up: as if told to stop. */
	p.cpus = 0;
	assert_int_equal(converge_step(stalled, 4, &p), STEP_OVER);
	p.cpus = CONVERGE_MIN_CPUS;
	assert_int_equal(converge_step(stalled, 4, &p), STEP_OVER);
	p.cpus = 1;
	p.limits.max_rounds = 4;
	assert_int_equal(converge_step(stalled, 4, &p), STEP_OVER);
	assert_int_equal(converge_step(converged, 3, &p), STEP_SWITCH);
}

static void test_step_max_downtime(void **state)
{
	struct converge_policy p = policy(ON_STALL_STOP);

	(void)state;
	p.max_downtime_ns = 1000 * MS;
	assert_int_equal(converge_step(stalled, 4, &p), STEP_ABORT);
	p.max_downtime_ns = 2000 * MS;
	assert_int_equal(converge_step(stalled, 4, &p), STEP_OVER);
	/* Even with nothing left to send, a freeze takes its time. */
	p.max_downtime_ns = 4 * MS;
	assert_int_equal(converge_step(converged, 3, &p), STEP_ABORT);
	p.max_downtime_ns = 10 * MS;
	assert_int_equal(converge_step(converged, 3, &p), STEP_SWITCH);
	/* Slowing down comes before giving up. */
	p = policy(ON_STALL_THROTTLE);
	p.max_downtime_ns = 100 * MS;
	assert_int_equal(converge_step(stalled, 4, &p), STEP_THROTTLE);
}

static void test_fixed_cost(void **state)
{
	struct converge_costs small = {.stop_ns = MS / 5, .tasks = 1, .fds = 10, .state_ns = MS / 2};
	struct converge_costs far = small, large = small, open = small;

	(void)state;
	assert_in_range(converge_fixed_ns(&small), 1 * MS, 5 * MS);
	far.rtt_ns = 20 * MS;
	assert_true(converge_fixed_ns(&far) == converge_fixed_ns(&small) + 40 * MS);
	large.tasks = 1001;
	assert_in_range(converge_fixed_ns(&large), 20 * MS, 100 * MS);
	open.fds = 20000;
	assert_in_range(converge_fixed_ns(&open), 50 * MS, 400 * MS);
	/* A fixed cost that eats up the budget leaves nothing for pages. */
	struct converge_policy p = policy(ON_STALL_STOP);
	const struct round_record r[] = {
		{1024 * MIB, 2000 * MS}, {8 * MIB, 16 * MS}, {8 * MIB, 16 * MS}, {8 * MIB, 16 * MS}};

	assert_int_equal(converge_step(r, 4, &p), STEP_SWITCH);
	p.limits.fixed_ns = 40 * MS;
	assert_int_equal(converge_step(r, 4, &p), STEP_OVER);
}

/* A program that writes @dirty bytes a second at full speed, slowed down until it fits. */
static enum converge_step play_throttled(double dirty, double bandwidth, double *ret_cpus,
					 unsigned *ret_slower)
{
	struct converge_policy p = policy(ON_STALL_THROTTLE);
	struct round_record r[64];
	double bytes = 1024. * MIB;
	size_t n = 0;

	p.limits.max_rounds = 60;
	*ret_slower = 0;
	for (;;) {
		r[n] = (struct round_record){(uint64_t)bytes, (uint64_t)(bytes / bandwidth * 1e9) + 200000};
		bytes = dirty * p.cpus * r[n].ns / 1e9;
		if (bytes > 1024. * MIB)
			bytes = 1024. * MIB;
		n++;
		enum converge_step step = converge_step(r, n, &p);

		*ret_cpus = p.cpus;
		if (step != STEP_ROUND && step != STEP_THROTTLE)
			return step;
		if (step == STEP_THROTTLE) {
			double before = p.cpus;

			p.cpus = converge_throttle(r, n, &p);
			assert_true(p.cpus < before && p.cpus >= before / 3.01);
			p.throttled = true;
			p.since = n;
			++*ret_slower;
		}
	}
}

static void test_throttle(void **state)
{
	unsigned slower;
	double cpus;

	(void)state;
	/* Four times as fast as the link: a quarter of its speed is not enough, but not much less is needed.
	 */
	assert_int_equal(play_throttled(2000. * MIB, 500. * MIB, &cpus, &slower), STEP_SWITCH);
	assert_true(cpus >= CONVERGE_MIN_CPUS && cpus < 0.25);
	assert_in_range(slower, 1, 6);
	/* A little too fast: it keeps most of its speed. */
	assert_int_equal(play_throttled(520. * MIB, 500. * MIB, &cpus, &slower), STEP_SWITCH);
	assert_true(cpus > 0.2);
	/* Whatever is left to it is too fast. */
	assert_int_equal(play_throttled(50000. * MIB, 500. * MIB, &cpus, &slower), STEP_OVER);
	assert_true(cpus <= CONVERGE_MIN_CPUS);
	assert_int_equal(play_throttled(50. * MIB, 500. * MIB, &cpus, &slower), STEP_SWITCH);
	assert_int_equal(slower, 0);
}

/* A migration of redis under load, as it was recorded; it then took 39.5 ms. */
static void test_recorded(void **state)
{
	static const struct round_record redis[] = {{145768448, 311235252},
						    {37498880, 111612437},
						    {20901888, 74907661},
						    {18317312, 63697180},
						    {15314944, 55709102}};
	struct converge_policy p = policy(ON_STALL_STOP);

	(void)state;
	p.limits.max_rounds = 30;
	p.limits.fixed_ns = 6915603;
	for (size_t n = 1; n < 5; n++)
		assert_int_equal(converge_step(redis, n, &p), STEP_ROUND);
	assert_in_range(converge_left_ns(redis, 5, 0) + p.limits.fixed_ns, 35 * MS, 60 * MS);
	assert_int_equal(converge_step(redis, 5, &p), STEP_OVER);
	p.max_downtime_ns = 50 * MS;
	assert_int_equal(converge_step(redis, 5, &p), STEP_ABORT);
	p.max_downtime_ns = 0;
	p.limits.downtime_ns = 60 * MS;
	assert_int_equal(converge_step(redis, 5, &p), STEP_SWITCH);
	p.limits.downtime_ns = 30 * MS;
	p.on_stall = ON_STALL_THROTTLE;
	assert_int_equal(converge_step(redis, 5, &p), STEP_THROTTLE);
}

/* A trace of @n intervals of 1 s, with a first part of 100 ms. */
static size_t trace(struct track_sample *t, size_t n, uint64_t memory, uint64_t dirty, uint64_t short_dirty,
		    uint64_t working_set)
{
	for (size_t i = 0; i < n; i++)
		t[i] = (struct track_sample){.ns = 1000 * MS,
					     .dirty = dirty,
					     .short_ns = 100 * MS,
					     .short_dirty = short_dirty,
					     .working_set = working_set,
					     .memory = memory,
					     .round_ns = MS / 2,
					     .collect_ns = MS / 2};
	return n;
}

static void test_written(void **state)
{
	struct track_sample t[40];
	size_t n;

	(void)state;
	/* Ever new pages: as the time. Not more than there are. */
	n = trace(t, 10, 4096 * MIB, 50 * MIB, 5 * MIB, 500 * MIB);
	assert_in_range(converge_written(t, n, 10 * MS), MIB / 2 - 4096, MIB / 2 + 4096);
	assert_in_range(converge_written(t, n, 1000 * MS), 50 * MIB - 4096, 50 * MIB);
	assert_in_range(converge_written(t, n, 5000 * MS), 250 * MIB - 4096, 250 * MIB + 4096);
	assert_int_equal(converge_written(t, n, 1000000 * MS), 4096 * MIB);
	/* The same pages all the time: as many in any time. */
	n = trace(t, 10, 4096 * MIB, 8 * MIB, 8 * MIB, 8 * MIB);
	assert_int_equal(converge_written(t, n, MS), 8 * MIB);
	assert_int_equal(converge_written(t, n, 10000 * MS), 8 * MIB);
	/* In between: more in more time, but not in the same measure, and at most the working set. */
	n = trace(t, 10, 4096 * MIB, 40 * MIB, 20 * MIB, 60 * MIB);
	assert_in_range(converge_written(t, n, 100 * MS), 20 * MIB - 4096, 20 * MIB + 4096);
	assert_in_range(converge_written(t, n, 10 * MS), 5 * MIB, 15 * MIB);
	assert_int_equal(converge_written(t, n, 9000 * MS), 60 * MIB);
	/* Nothing; nothing in the first part; more in the first part than possible. */
	n = trace(t, 3, 4096 * MIB, 0, 0, 0);
	assert_int_equal(converge_written(t, n, 1000 * MS), 0);
	n = trace(t, 3, 4096 * MIB, 10 * MIB, 0, 30 * MIB);
	assert_in_range(converge_written(t, n, 100 * MS), MIB - 4096, MIB + 4096);
	n = trace(t, 3, 4096 * MIB, 10 * MIB, 11 * MIB, 30 * MIB);
	assert_in_range(converge_written(t, n, 1 * MS), 10 * MIB - 4096, 10 * MIB + 4096);
	assert_int_equal(converge_written(t, 0, 1000 * MS), 0);
}

static void test_recent_counts(void **state)
{
	struct track_sample t[40];

	(void)state;
	trace(t, 20, 4096 * MIB, 1000 * MIB, 100 * MIB, 4000 * MIB);
	trace(t + 20, 20, 4096 * MIB, 10 * MIB, MIB, 4000 * MIB);
	assert_in_range(converge_written(t, 40, 1000 * MS), 10 * MIB - 4096, 10 * MIB + 4096);
}

static void predict(const struct track_sample *t, size_t n, uint64_t mib_s, struct converge_prediction *p)
{
	converge_predict(t, n, mib_s * MIB, &limits, p);
}

static void test_prediction(void **state)
{
	struct converge_prediction p;
	struct track_sample t[10];
	size_t n = trace(t, 10, 1024 * MIB, 0, 0, 0);

	(void)state;
	/* Idle: one round for all of it, one that finds nothing. */
	predict(t, n, 512, &p);
	assert_int_equal(p.verdict, CONVERGE_SWITCH);
	assert_int_equal(p.rounds, 2);
	assert_int_equal(p.bytes, 1024 * MIB);
	assert_in_range(p.ns, 2000 * MS, 2010 * MS);
	assert_in_range(p.downtime_ns, 5 * MS, 6 * MS);
	/* 50 MiB/s against 512: each round a tenth of the one before. */
	n = trace(t, 10, 1024 * MIB, 50 * MIB, 5 * MIB, 500 * MIB);
	predict(t, n, 512, &p);
	assert_int_equal(p.verdict, CONVERGE_SWITCH);
	assert_in_range(p.rounds, 3, 6);
	assert_in_range(p.bytes, 1100 * MIB, 1200 * MIB);
	assert_in_range(p.downtime_ns, 5 * MS, 8 * MS);
	/* It writes faster than the link is: the downtime is what is written during a round. */
	n = trace(t, 10, 1024 * MIB, 900 * MIB, 90 * MIB, 1024 * MIB);
	predict(t, n, 100, &p);
	assert_int_equal(p.verdict, CONVERGE_STALLED);
	assert_true(p.downtime_ns > 5000 * MS);
	/* A hot set of 2 MiB never gets smaller, but fits: 20 ms at 100 MiB/s; one of 20 MiB does not. */
	n = trace(t, 10, 1024 * MIB, 2 * MIB, 2 * MIB, 2 * MIB);
	predict(t, n, 100, &p);
	assert_int_equal(p.verdict, CONVERGE_SWITCH);
	assert_in_range(p.downtime_ns, 25 * MS, 27 * MS);
	n = trace(t, 10, 1024 * MIB, 20 * MIB, 20 * MIB, 20 * MIB);
	predict(t, n, 100, &p);
	assert_int_equal(p.verdict, CONVERGE_STALLED);
	assert_in_range(p.downtime_ns, 205 * MS, 207 * MS);
	/* What cannot be tracked goes frozen. */
	n = trace(t, 10, 1024 * MIB, 0, 0, 0);
	t[9].untracked = 10 * MIB;
	predict(t, n, 100, &p);
	assert_int_equal(p.verdict, CONVERGE_STALLED);
	assert_in_range(p.downtime_ns, 105 * MS, 107 * MS);
}

/* It says the same as rounds that are really played. */
static void test_prediction_agrees(void **state)
{
	static const uint64_t rates[] = {1, 10, 50, 100, 200, 400};
	struct converge_prediction p;
	struct track_sample t[5];

	(void)state;
	for (size_t i = 0; i < sizeof(rates) / sizeof(rates[0]); i++) {
		size_t rounds, n = trace(t, 5, 2048 * MIB, rates[i] * MIB, rates[i] * MIB / 10, 2048 * MIB);
		enum converge c = play(2048 * MIB, rates[i] * (double)MIB, 500. * MIB, &rounds);

		predict(t, n, 500, &p);
		assert_int_equal(p.verdict, c);
		assert_in_range(p.rounds, rounds - 1, rounds + 1);
	}
}

/* What is packed in rounds and not at the stop takes longer there. */
static void test_stop_takes_longer(void **state)
{
	(void)state;
	const struct round_record r[] = {{100 << 20, 1000 * MS}, {10 << 20, 100 * MS}, {10 << 20, 100 * MS}};
	struct converge_limits l = limits;

	assert_int_equal(converge_frozen_ns(r, 3, &l), converge_left_ns(r, 3, 0));
	l.downtime_ns = 150 * MS;
	l.max_rounds = 3;
	assert_int_equal(converge_decide(r, 3, &l), CONVERGE_SWITCH);
	l.stop_factor = 2;
	assert_int_equal(converge_frozen_ns(r, 3, &l), 2 * converge_left_ns(r, 3, 0));
	assert_int_equal(converge_decide(r, 3, &l), CONVERGE_STALLED);
	assert_int_equal(converge_frozen_ns(r, 0, &l), UINT64_MAX);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_stop_takes_longer),
		cmocka_unit_test(test_nothing_known),
		cmocka_unit_test(test_idle_program),
		cmocka_unit_test(test_converges),
		cmocka_unit_test(test_stalls),
		cmocka_unit_test(test_sizes_go_up_and_down),
		cmocka_unit_test(test_small_hot_set),
		cmocka_unit_test(test_good_moment),
		cmocka_unit_test(test_max_rounds),
		cmocka_unit_test(test_step_stalled),
		cmocka_unit_test(test_step_max_downtime),
		cmocka_unit_test(test_fixed_cost),
		cmocka_unit_test(test_throttle),
		cmocka_unit_test(test_recorded),
		cmocka_unit_test(test_left),
		cmocka_unit_test(test_long_way),
		cmocka_unit_test(test_written),
		cmocka_unit_test(test_recent_counts),
		cmocka_unit_test(test_prediction),
		cmocka_unit_test(test_prediction_agrees),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
