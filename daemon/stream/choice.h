/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Is it worth packing page data, and with what?  Pure functions of what has been seen: time and outcome of
 * packing, and how long the link takes for a byte.  Nothing here reads a clock.
 *
 * In a long round the link works on while we pack the next record, so a byte costs whichever of the two takes
 * longer.  At its beginning, in a short round, and at the stop there is nothing on the way meanwhile: it
 * costs the sum, and what the other side needs for unpacking.  So packing may pay in long rounds and not at
 * the stop, where it must not be done for its own sake.
 */
#include <stdbool.h>
#include <stdint.h>

#include "stream/codec.h"

enum compress_mode {
	COMPRESS_NONE,
	COMPRESS_LZ4,
	COMPRESS_ZSTD,
	COMPRESS_AUTO,
};

#define CHOICE_SAMPLE (256u << 10) /* bytes of page data that are packed to see what comes of it */

struct choice {
	enum compress_mode mode;
	unsigned known;  /* CODEC_BITs that the reader knows */
	double limit_ns; /* per byte on the wire, as ordered (--max-bandwidth); 0: none */
	double link_ns;  /* per byte on the wire, as seen; 0: it has never kept us waiting */
	bool hurry;      /* the target stands */
	struct choice_seen {
		bool seen;
		double cpu_ns; /* per byte of page data */
		double ratio;  /* bytes on the wire per byte of page data */
		uint64_t due;  /* when it is to be sampled again (the caller's clock) */
	} codec[CODECS];
	struct choice_flow {
		uint64_t wire, waited_ns, elapsed_ns;
	} window, round; /* since the link was looked at last; since it was idle */
	bool long_round; /* the last one that ended */
};

/* @max_bandwidth: bytes/s; 0: no limit. */
void choice_init(struct choice *c, enum compress_mode mode, unsigned known, uint64_t max_bandwidth);
/* For the next record. */
enum codec choice_pick(const struct choice *c);
/* A codec that is to be tried on a sample now, besides; CODEC_NONE: none. */
enum codec choice_sample(const struct choice *c, uint64_t now);
/* @bytes of page data became @packed in @ns. @sample: for nothing but that. */
void choice_packed(struct choice *c, enum codec codec, uint64_t bytes, uint64_t packed, uint64_t ns,
		   bool sample, uint64_t now);
/* @wire bytes went @elapsed_ns after what went before them; @waited_ns of that the link let us wait (not: we
 * were busy giving them to it). */
void choice_sent(struct choice *c, uint64_t wire, uint64_t waited_ns, uint64_t elapsed_ns);
/* All that went has arrived, @ns after the last of it was given to the link, which is idle now. */
void choice_arrived(struct choice *c, uint64_t ns);
/* Frozen, page data take so many times as long: 1 or more. */
double choice_stop_factor(const struct choice *c);
/* Is the link slow enough for a look at each page (a hash, 0.3 us) to be cheaper than sending it? */
bool choice_link_is_slow(const struct choice *c);
