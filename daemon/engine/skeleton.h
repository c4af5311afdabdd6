/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Skeletons: processes at the destination that already have the target's pids, parents, sessions and memory
 * layout, and wait, with nothing but the parasite's region of their own, to become the target.
 */
#include "base/error.h"
#include "base/page_set.h"
#include "freeze/tree.h"
#include "parasite/region.h"
#include "proto/image.pb-c.h"
#include "proto/memory.pb-c.h"
#include "state/memory/memory.h"

#define SKELETON_REGION_SIZE (64u << 20)

/* How page contents get into its private memory (place.c says what is used when, and why). */
struct place {
	int uffd;                   /* of the skeleton's memory, held by us only; -1: none (yet) */
	bool no_uffd;               /* it could not be made: everything is written */
	int pidfd, pagemap_fd;      /* opened when first needed, else -1 */
	struct page_set registered; /* missing pages there are put in place by the descriptor */
	struct page_set refused;    /* the kernel does not do that here */
	struct page_set huge;       /* was made of huge pages (or was tried) */
};

struct skeleton { /* process->data */
	struct region *region;
	struct runner *runner; /* of the leader, NULL: stopped */
	int mem_fd;
	Ferry__Mm *mm;         /* layout it has now; NULL: none yet */
	struct page_set has;   /* pages it was given: what a clone of it would inherit */
	struct page_set drops; /* to be given back before anything is written over them */
	uint64_t start_time;   /* at the source */
	bool has_terminal;     /* as the leader of a session */
	struct place place;
};

struct skeletons {
	struct tree *tree;
	uint64_t region_addr;
	bool detached;  /* the caller is going to end: the root is an orphan from the start */
	bool sibling;   /* the root becomes a sibling of the caller */
	bool shell_job; /* sessions and groups from outside are those of the caller */
	struct rebuild *rebuild;
	/* The one whose SAME runs are coming in. */
	struct process *heir; /* NULL: none */
	pid_t holder;
	struct page_set heritable, taken;
};

/* Bring the skeletons that there are to what the snapshot of @s->rebuild says (Tree and Ferry__Mm records):
 * change, kill. The root is made. */
int skeletons_sync(struct skeletons *s, struct error *e);
/* Make those that are missing, in the order of the Tree, as far as @pid, which is not there yet; 0: all, with
 * their sessions and groups. */
int skeletons_make(struct skeletons *s, pid_t pid, struct error *e);
/* A SAME run: the first one of a process makes it, a clone of the one that the run names. */
int skeletons_take(struct skeletons *s, const struct page_run *run, struct error *e);
/* The SAME runs of a process are over: what it inherited and did not take goes. Before anything else is done
 * to the skeletons. */
int skeletons_end_taking(struct skeletons *s, struct error *e);
/* Put the content of @run (@data NULL: zeros, or a drop) where the layout has private memory. @p alive. */
int skeleton_write(struct process *p, const struct page_run *run, const void *data, struct error *e);
int skeleton_flush_drops(struct process *p, struct error *e);
/* Turn the skeletons of zombies into zombies. After that nothing can be changed in them. */
int skeletons_make_zombies(struct skeletons *s, const Ferry__Tree *tree, struct error *e);
/* Run a batch in the leader. */
int skeleton_batch(struct process *p, struct batch *b, struct error *e);
/* The leader's thread between running batches and being ptrace-stopped. */
int skeleton_run(struct process *p, struct error *e);
int skeleton_stop(struct process *p, struct error *e);
/* Kill all and forget. */
void skeletons_kill(struct skeletons *s);
/* Free host-side memory only. */
void skeleton_data_free(struct process *p);
