/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * The destination side: skeletons, fed from a stream, then started.  The calling thread traces the skeletons
 * (EXITKILL: if it dies before the start, they die).
 */
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/error.h"
#include "base/events.h"
#include "base/hooks.h"
#include "state/kind.h"
#include "stream/stream.h"

struct restore;
struct pager;

struct allowance_table;

/* 0: any. */
struct restore_limits {
	uint64_t memory; /* bytes: private memory of each process, and shared memory once */
	uint64_t tasks;  /* processes and threads */
	/* Shared with other rebuilds for the same peer (engine/allowance.h); NULL: each has all of it. */
	struct allowance_table *table;
	size_t slot;    /* this one's */
	bool rehearsal; /* nothing is going to be taken */
};

struct restore_options {
	struct state_options state;
	struct restore_limits limits;
	bool leave_stopped; /* -s */
	bool detached;      /* -d: the caller is going to end; the root is nobody's child from the start */
	bool sibling;       /* -S: root becomes a sibling of the caller */
	const struct hooks *hooks;       /* NULL: none */
	const struct restore_lazy *lazy; /* NULL: all pages are there before the start */
};

/* Restore from an image, but for pages that come when they are wanted (docs/post-copy.md). */
struct restore_lazy {
	const char *state_path; /* where the pager's state is written (engine/pager.h) */
	/* Nothing runs yet; when this returns somebody else has taken over what @state_path says. */
	int (*hand_over)(void *ctx, struct error *e);
	/* It runs. */
	void (*started)(void *ctx);
	void *ctx;
};

/* Restore from an image directory (chain) in one go. Root's pid in *ret_pid; it is a child of the caller (or
 * sibling). On failure nothing of the tree is left. */
int restore_from_dir(int dirfd, const struct restore_options *o, const struct events *ev, pid_t *ret_pid,
		     struct error *e);

/* Piecewise, for migration: feed records as they arrive. */
int restore_new(struct restore **ret, const struct restore_options *o, const struct events *ev,
		struct error *e);
/* One record: layouts build or change skeletons at once, pages go straight into place, state is kept. */
int restore_feed(struct restore *r, const struct record *rec, struct error *e);
/* Skeletons follow what was fed so far, pending drops are done: at the end of a round. */
int restore_sync(struct restore *r, struct error *e);
/* Can what was fed so far (warm records too) be rebuilt here? */
int restore_check(struct restore *r, struct error *e);
/* The same before anything else came in than warm records. They are of a program that runs on, so what they
 * tell of a file may be over by now: when there is something to complain about they are forgotten, to be fed
 * anew from a later look. */
int restore_look(struct restore *r, struct error *e);
/* Ids of the shared memory objects that were made here, none of which was there before; malloc'ed. */
uint64_t *restore_made_objects(const struct restore *r, size_t *ret_n);
/* Are pids and huge pages to be had just now? For a rehearsal: nothing is made. */
int restore_check_places(struct restore *r, struct error *e);
/* Post-copy: can a tree be started here before all of its pages have come? */
bool lazy_possible(bool shared);
/* @pid starts without these pages: @n / 2 pairs of start and end, ascending. */
int restore_expect_missing(struct restore *r, pid_t pid, const uint64_t *pairs, size_t n, struct error *e);
uint64_t restore_missing_bytes(const struct restore *r);
/* Prepared: the userfaultfds of what is missing; the caller's. */
int restore_take_pager(struct restore *r, struct pager **ret, struct error *e);
/* Everything but the start: files, task state, ready to run. */
int restore_prepare(struct restore *r, struct error *e);
pid_t restore_root(const struct restore *r);
/* Call @each with every process that is to be started; @runs: not left stopped. */
void restore_each(const struct restore *r, void (*each)(void *ctx, pid_t pid, bool runs), void *ctx);
/* Prepared: call @each with the addresses that come with the program (state/sockets/tcp.h). */
void restore_each_address(struct restore *r, void (*each)(void *ctx, const char *local, const char *peer),
			  void *ctx);
/* Packets of TCP connections that came at the source meanwhile (state/sockets/tcp.h). */
void restore_put_packets(struct restore *r, const ProtobufCBinaryData *list, size_t n);
/* Prepared: from here on the end of this process would leave all of the tree stopped (SIGSTOP), instead of
 * killing it; in between some would be killed and the others stopped, but nothing runs. Fails when something
 * of the tree has died meanwhile; then restore_free kills the rest. */
int restore_hold(struct restore *r, struct error *e);
/* Start all tasks, held or not. After this restore_free leaves them alone. */
int restore_start(struct restore *r, pid_t *ret_root, struct error *e);
/* Kills skeletons that were not started. */
void restore_free(struct restore *r);
