/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* What region.c and runner.c share. */
#include "parasite/region.h"

#define SLOT_SIZE  (16 * 1024u) /* per runner, from the end of the region downwards; mostly its stack */
#define SLOT_TOP   128u         /* the mailbox, at the end of the slot; the frame to go back to is below it */
#define ARENA_BASE (PB_CODE_MAX + 4096u)

struct region {
	pid_t pid;
	uint64_t addr;
	size_t size;
	uint8_t *map;       /* the same memory here */
	struct task *owner; /* it ran the mmap and will run the munmap */
	bool skeleton;
	bool mutex_held; /* the host word in the header is ours */
	struct runner **runners;
	size_t n_runners, cap_runners;
	uint8_t *slots; /* used or not */
	size_t n_slots;
	size_t arena;    /* next free byte for batches */
	size_t n_posted; /* batches in the arena */
};

struct runner {
	struct region *region;
	struct task *task;
	size_t slot;
	struct pb_mailbox *mailbox;
	uint32_t seq;
	struct batch *posted;
	size_t posted_at; /* offset of its struct pb_batch */
	bool broken;      /* left in the middle of a batch */
	bool resting;     /* asked to make no more calls */
};

/* Before a thread with a seccomp filter is taken back: out of its call, into a loop. For others nothing. */
void runner_rest(struct runner *w);

/* The parasite's code, read once. */
int blob_code(const uint8_t **ret, size_t *ret_size, struct error *e);
