/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * In which order did the threads of a program do to their memory what their userfaultfd tells?  Each waits
 * until its event is read, so all of one thread are in order; those of different threads are not, as some
 * time passes between what is done and the event (docs/post-copy.md, "The order of events").
 *
 * Pure: what the memory is now is asked for.
 */
#include <linux/userfaultfd.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct order_event {
	struct uffd_msg msg; /* REMAP, UNMAP, REMOVE; others are left out of the order */
	bool out;            /* not to be put in order */
	bool stays;          /* set: a REMAP that left the old place mapped, as far as is known */
};

struct order_memory {
	/* Is there memory that reports faults at @addr? 1 or 0. */
	int (*is_there)(void *ctx, uint64_t addr);
	void *ctx;
	bool after; /* it says so of the time after all events; else of that before */
};

/* The unmapping of its old place that follows a move is told as an event of its own, which nothing marks:
 * those of the moves among the @first events are found in all of them and set @out, as the move says it all.
 */
void order_pair(struct order_event *ev, size_t n, size_t first);
/* Indices into @ev, of which those set @out are left out, to @ret (room for @n); their number. */
size_t order_events(const struct order_event *ev, size_t n, const struct order_memory *memory, size_t *ret);
/* Does @m take away what was at a place (*ret_start, *ret_end)? Does it bring something to one? */
bool order_frees(const struct uffd_msg *m, bool stays, uint64_t *ret_start, uint64_t *ret_end);
bool order_fills(const struct uffd_msg *m, uint64_t *ret_start, uint64_t *ret_end);
