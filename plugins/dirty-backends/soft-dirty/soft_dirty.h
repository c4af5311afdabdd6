/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
#include <sys/types.h>

#include "pages.h"

/*
 * Does this kernel mark written pages (0, or -errno with a reason)?  *ret_scan: PAGEMAP_SCAN knows the mark;
 * else the words of pagemap must be read.
 */
int soft_dirty_probe(bool *ret_scan, char *why, size_t why_size);

/* Memory that was moved without a mark (moved.c). */
struct witnesses {
	struct witness {
		uint64_t page, place;
	} * v;
	size_t n, cap;
};
struct moved {
	struct witnesses old, now;
};
/* A round begins, and ends: what it has found counts for the next. */
void moved_begin(struct moved *m);
void moved_end(struct moved *m);
void moved_free(struct moved *m);
/*
 * A piece, while the target stands; pieces come in ascending order.  @record: in a round.  What may be other
 * memory than it was is appended to @doubt, with DIRTY_WRITTEN | DIRTY_UNSURE; NULL: the piece is new. @scan:
 * there is PAGEMAP_SCAN. 0 or -errno.
 */
int moved_look(struct moved *m, int pagemap, const struct dirty_vma *v, bool scan, bool record,
	       struct ranges *doubt);
/* After a round: is the memory of [start, end), as far as it has witnesses, where it was? */
bool moved_still(const struct moved *m, int pagemap, uint64_t start, uint64_t end);

/* Writes of other processes while the target stands still (outside.c). */
#define OUTSIDE_PATH 512
struct outside {
	pid_t pid;
	int uffd; /* on the target's memory; -1: there is none */
	uint64_t lowest;
	bool known;
	char counting[OUTSIDE_PATH];
	uint64_t count, own;
};
/* During attach; what cannot be had makes outside_none always false. */
void outside_open(struct outside *o, const struct dirty_target *t);
void outside_close(struct outside *o);
/* Before the first look of a round, and after the reset: was certainly nothing written between? */
void outside_begin(struct outside *o);
bool outside_none(const struct outside *o);
