/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * What a program under test knows about itself.  It lies at a fixed address, so that the bench can read (and
 * reset) it through /proc/PID/mem before, while and after the program is moved, and the program needs no file
 * for it.
 */
#include <stdatomic.h>
#include <stdint.h>
#include <time.h>

#define STATS_ADDRESS 0x5e0000000000UL
#define STATS_MAGIC   0x6265666572727931UL
#define TREE_THREADS  4096

#define STATS_GAPS 200

struct stats_gap {
	uint64_t begin, end; /* ns */
};

struct stats {
	uint64_t magic;
	uint64_t size;                 /* bytes of memory under test */
	_Atomic uint64_t reset_wanted; /* the bench counts up; the program follows in reset_done */
	_Atomic uint64_t reset_done;
	_Atomic uint64_t since_ns; /* CLOCK_MONOTONIC of the last reset */
	_Atomic uint64_t last_ns;  /* of the last stamp */
	_Atomic uint64_t longest_ns, longest_at_ns;
	_Atomic uint64_t over_5ms, over_20ms;       /* gaps longer than that */
	_Atomic uint64_t written, written_at_reset; /* bytes rewritten since the start */
	_Atomic uint64_t wrong;                     /* pages found with another content than was written */
	uint64_t n_gaps;                            /* since the reset */
	struct stats_gap gaps[STATS_GAPS];          /* the longest */
};

/* The tree: one counter per thread, shared by all its processes. */
struct tree_stats {
	uint64_t magic;
	uint64_t threads;
	_Atomic uint64_t ticks[TREE_THREADS];
};

static inline uint64_t now_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}
