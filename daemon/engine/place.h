/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Page contents into a skeleton's private memory. */
#include "engine/skeleton.h"

void place_init(struct place *pl);
void place_deinit(struct place *pl);
/* Put @n bytes of content at @addr; all of it is in @v, private. */
int place_write(struct process *p, const Ferry__Vma *v, uint64_t addr, const void *data, uint64_t n,
		struct error *e);
/* The layout is going to change: nothing stays registered (it will be again when it is written). */
void place_pause(struct place *pl);
/* What huge pages back at the source shall be backed by huge pages here: made before it is filled, or of what
 * is there. The layout is that of @mm. Nothing is made in @not. */
int place_huge(struct process *p, const Ferry__Mm *mm, const struct page_set * not, struct error *e);
/* [start, end) was given back: no huge pages there any more. */
void place_dropped(struct place *pl, uint64_t start, uint64_t end);
/* Zeros here belong to a huge page: they are written, not dropped. */
bool place_keeps_zeros(const struct place *pl, uint64_t start, uint64_t end);
