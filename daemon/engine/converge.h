/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Whether to go on with rounds: a pure function of the rounds so far.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct round_record {
	uint64_t bytes; /* sent in this round (pages that were dirty) */
	uint64_t ns;    /* its duration: collect to acknowledgement */
};

enum converge {
	CONVERGE_ROUND,   /* another round */
	CONVERGE_SWITCH,  /* freeze now: what is left fits into the budget and another round would not help */
	CONVERGE_STALLED, /* rounds do not get smaller and what is left does not fit */
};

struct converge_limits {
	unsigned max_rounds;
	uint64_t downtime_ns; /* budget */
	uint64_t fixed_ns;    /* cost of a freeze without any page, as measured or guessed */
	uint64_t rtt_ns;      /* of it, and of each round: the wait for an answer */
	double stop_factor;   /* frozen, pages take so many times as long as in a round; 0: as long */
};

/* What a freeze costs before the first page, put together from what was seen of this target and this link
 * while it ran. */
struct converge_costs {
	uint64_t stop_ns;  /* from asking one task to stop until it stood, mean of those that were tracked */
	unsigned tasks;    /* threads in all */
	unsigned fds;      /* descriptors in all */
	uint64_t swap_ns;  /* reading what stays in swap while it runs */
	uint64_t state_ns; /* reading what can be read of the state while it runs */
	uint64_t rtt_ns;   /* to the destination and back */
};
uint64_t converge_fixed_ns(const struct converge_costs *c);

/* What to do when rounds alone do not lead there. */
enum on_stall { ON_STALL_STOP, ON_STALL_ABORT, ON_STALL_THROTTLE, ON_STALL_POSTCOPY };

struct converge_policy {
	struct converge_limits limits;
	uint64_t max_downtime_ns; /* rather not at all than longer; 0: no bound */
	enum on_stall on_stall;
	double cpus;  /* what the target uses, or (throttled) is left; 0: it cannot be slowed down */
	size_t since; /* rounds before the last slow-down: they tell nothing about what is now */
	bool throttled;
};

enum converge_step {
	STEP_ROUND,    /* another round */
	STEP_SWITCH,   /* freeze: it will be within the budget */
	STEP_OVER,     /* freeze, although the budget will be exceeded */
	STEP_THROTTLE, /* slow the target down to converge_throttle(), then another round */
	STEP_ABORT,    /* give up, the target runs on: longer than the most, or told so */
};
enum converge_step converge_step(const struct round_record *r, size_t n, const struct converge_policy *p);
/* CPUs to leave to it; not less than CONVERGE_MIN_CPUS. */
#define CONVERGE_MIN_CPUS 0.05
double converge_throttle(const struct round_record *r, size_t n, const struct converge_policy *p);

/* Time that what is dirty now would take frozen, nanoseconds: estimated from the last round (what was written
 * during it goes in the next one at the same rate). UINT64_MAX before the first round. */
uint64_t converge_left_ns(const struct round_record *r, size_t n, uint64_t rtt_ns);
/* The same, as it will be with the target stopped. */
uint64_t converge_frozen_ns(const struct round_record *r, size_t n, const struct converge_limits *l);
enum converge converge_decide(const struct round_record *r, size_t n, const struct converge_limits *l);

/*
 * Before a migration: how would it go?  A program is followed without being copied (engine/observe.h); each
 * interval is looked at twice, so that what is written in a short time can be told from what is written in a
 * long one.
 */
struct track_sample {
	uint64_t ns;          /* length of the interval */
	uint64_t dirty;       /* bytes written in it, each page once */
	uint64_t short_ns;    /* its first part */
	uint64_t short_dirty; /* bytes written in that */
	uint64_t working_set; /* bytes written since the beginning, each page once */
	uint64_t memory;      /* bytes that a first round would copy */
	uint64_t untracked;   /* bytes that cannot be followed, so that only the frozen pass copies them */
	uint64_t round_ns;    /* time a round takes beside the copying: looking, asking */
	uint64_t collect_ns;  /* the part of it that the frozen pass has, too */
};

struct converge_prediction {
	enum converge verdict; /* CONVERGE_SWITCH, or CONVERGE_STALLED: the downtime is more than wanted */
	unsigned rounds;
	uint64_t bytes; /* copied while it runs */
	uint64_t ns;    /* time of the rounds */
	uint64_t downtime_ns;
};

/* Bytes written, each page once, in a time of @ns, by what the last intervals showed. */
uint64_t converge_written(const struct track_sample *t, size_t n, uint64_t ns);
/* Play the rounds of a migration at @bandwidth (bytes/s) against @t (@n samples, not 0). */
void converge_predict(const struct track_sample *t, size_t n, uint64_t bandwidth,
		      const struct converge_limits *l, struct converge_prediction *ret);
