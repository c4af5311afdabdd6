/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
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
