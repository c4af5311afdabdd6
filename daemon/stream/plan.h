/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Which parts of which page runs are to be read, given all runs of a chain of images. Inside the stream
 * layer; pure, no files.
 */
#include "stream/wire.h"

struct plan_run {
	struct wire_run run;
	uint32_t dir;   /* index of its image, 0 is the newest */
	uint32_t order; /* later runs of an image have a higher one */
	uint32_t burst; /* SAME: the first run of the uninterrupted sequence that this one is of */
};

enum piece_kind {
	PIECE_RUN,  /* data, or zeros, of `run` */
	PIECE_SAME, /* what process `from` has there by now */
	PIECE_DROP, /* nothing any more */
};

struct plan_piece {
	size_t run; /* index */
	uint64_t addr;
	uint64_t length;
	uint64_t id;   /* whose; may be another process than that of the run, shared by a SAME run */
	uint64_t from; /* PIECE_SAME */
	enum piece_kind kind;
};

struct piece_list {
	struct plan_piece *v;
	size_t n, cap;
};

struct plan {
	struct plan_run *runs;
	size_t n_runs, cap_runs;
	struct plan_piece *pieces;
	size_t n_pieces, cap_pieces;
};

void plan_deinit(struct plan *p);
/* In the order of reading: images from the newest to the oldest, runs of one as they lie in it. */
int plan_add(struct plan *p, const struct wire_run *r, uint32_t dir, struct error *e);
/* Every run as a piece. */
int plan_all(struct plan *p, struct error *e);
/* Pieces without overlap: each address from the newest image that has it, there from the last run; none where
 * that run is a DROP; for a SAME run those of the process it names, as that was then. By space, id, address;
 * PIECE_RUN only. */
int plan_newest(struct plan *p, struct error *e);
/* After plan_newest: pieces that several processes have in common once, for the holder, and PIECE_SAME for
 * the others, in an order in which each process can be cloned from its holder. Pieces of processes that are
 * not listed go. */
int plan_share(struct plan *p, const struct stream_kin *kin, size_t n, struct error *e);
int piece_add(struct piece_list *l, const struct plan_piece *p, struct error *e);
/* In the order in which their data lie in the images. */
void pieces_sort_for_reading(struct plan_piece *v, size_t n);
