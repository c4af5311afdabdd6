/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Pages that processes share since a fork, at the source (docs/cow-sharing.md).  Between memory_resolve of
 * all processes and memory_send of those concerned.
 */
#include "state/memory/memory.h"

struct frames { /* where pages lie: of those in @pages, in order */
	struct page_set pages;
	uint64_t *words;
};

struct other { /* a page that lies elsewhere than the holder's, and is not the process' own */
	uint64_t addr, frame;
	const struct memory_process *by; /* of a version: whose hash of it is right */
};

/* A process that others are going to be cloned from at the other side. */
struct share_holder {
	struct memory_process *mp;
	struct frames frames;  /* when its heirs were looked at */
	struct page_set bad;   /* written since */
	struct page_set old;   /* has an older version there at the other side */
	struct other *version; /* of `old`, by address */
	size_t n_version;
	struct page_set sent; /* content that went before its turn */
};

/* One that is new to the other side. */
struct heir {
	struct memory_process *mp;
	struct share_holder *holder;
	const struct page_set *common; /* what it can inherit (kin.h) */
	struct page_set equal;         /* pages that lie where the holder's do */
	struct other *others;          /* that another heir has too */
	size_t n_others;
};

/* Look where the pages of @h and of those who inherit from it lie. What cannot be known is not shared. */
int share_look(struct share_holder *h, struct heir *const *heirs, size_t n, struct error *e);
/* What @x needs of its holder goes now, then the SAME runs of @x. */
int share_send(struct memory *m, struct heir *x, struct stream_out *out, bool final, struct round_stats *st,
	       struct error *e);
/* All heirs of @h are made: what it has itself, where older versions are, goes with its other pages. */
int share_put_back(struct share_holder *h, struct error *e);
void share_holder_deinit(struct share_holder *h);
void heir_deinit(struct heir *x);
