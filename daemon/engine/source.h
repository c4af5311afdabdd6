/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * The steps of the capture pipeline, in the order a dump or a migration takes them:
 *
 *	session_open, session_round..., session_freeze, session_final, session_end
 *
 * After session_freeze every path must go through session_end, which takes the parasite out, thaws or kills.
 */
#include "engine/converge.h"
#include "engine/session.h"
#include "state/memory/memory.h"

#define SESSION_MAX_ROUNDS 64

struct session {
	struct session_options opt;
	char *backend_name;
	const struct events *events;
	struct tree *tree;
	struct memory *memory;
	struct snapshot snapshot;
	struct capture capture;
	bool tree_changed; /* since it was last put into the stream */
	pid_t *gone;       /* ended since the last round, after some of their pages went */
	size_t n_gone;
	struct stream_kin *kin; /* of the processes of the last Tree message, in its order */
	size_t n_kin;
	bool objects_changed;
	bool injected;                                  /* regions may be in the target */
	struct round_record rounds[SESSION_MAX_ROUNDS]; /* of the current verb */
	size_t n_rounds;
	double shared_part; /* of what the last round copied: of shared memory, which is never left behind */
	struct converge_costs costs; /* as far as they are known */
	unsigned n_stops;            /* of which costs.stop_ns is the mean */
	uint64_t fixed_ns;           /* what was expected of the freeze when it was decided upon */
	struct throttle *throttle;   /* NULL: it runs at its own speed */
	bool post_copy;              /* pages stay behind at the freeze */
	struct round_stats total;
	struct stream_flow flow; /* page data so far */
	uint64_t t_begin, t_freeze, t_frozen, t_pages, t_state;
	uint64_t t_running; /* post-copy: when the other side said so; 0: at the end */
	pid_t root;
	uint64_t root_start;
	char uuid[37]; /* of the inventory put last */
};

struct stream_out;

/* One round with the target running. @layout: put tree and layout into the stream when they changed (a
 * migration's skeletons follow; a directory needs them only at the end). 0; -ESRCH when the root has gone. */
int session_round(struct session *s, struct stream_out *out, bool layout, struct error *e);
/* loop.c: rounds until converge_step() says that it is time. -ETIMEDOUT: it would be stopped for longer than
 * it may, or rounds do not get smaller and the policy is to give up. @ack, may be NULL: called after each
 * round, returns when the other side has it all. */
int session_rounds(struct session *s, struct stream_out *out, bool layout,
		   int (*ack)(void *ctx, unsigned round, struct error *e), void *ctx, struct error *e);
/* About so many bytes of memory it has. */
uint64_t session_bytes(const struct session *s);
int session_put_inventory(struct session *s, struct stream_out *out, bool pre_dump, struct error *e);
/* Warm records of kinds for the destination's checks. */
int session_put_warm(struct session *s, struct stream_out *out, struct error *e);
int session_freeze(struct session *s, struct error *e);
/* Frozen: last pages and all state into the stream. */
int session_final(struct session *s, struct stream_out *out, bool layout, struct error *e);
/* End of a freeze. SESSION_KILL: the target ends. Else it runs on (or stopped) as before. @finished: with
 * SESSION_RUN tracking goes on only if false. Errors of undoing are collected, everything is tried. */
int session_end(struct session *s, enum session_end end, struct error *e);
/* --- between the files of the pipeline ------------------------------------------------------------- */
/* loop.c: tasks and descriptors of the tree, into the costs. One more measured stop. At the freeze: the
 * target gets its speed back. */
void session_count(struct session *s);
void session_note_stop(struct session *s, uint64_t ns);
void session_full_speed(struct session *s);
/* session.c: a process that ended while we looked at it is no failure, unless it is the root. */
bool session_vanished(const struct process *p);
int session_forgive(struct session *s, struct process *p, int r, struct error *e);
/* What the target does meanwhile. */
enum session_when {
	SESSION_WARM,    /* it runs */
	SESSION_STOPPED, /* it stands for the collect of a round; tracking goes on */
	SESSION_FROZEN,  /* the last pass: nothing more is tracked */
};
/* A look at a running tree may find things half done: a child that the tree does not know yet has the other
 * end of a pipe. So what @look refuses (-ENOTSUP) counts when several looks in a row, with the tree brought
 * up to date in between, refuse: some 115 ms. */
int session_confirm(struct session *s, int (*look)(struct session *s, struct error *e), struct error *e);
/* Follow a process (preflight, layout, tracking), or all that are not followed yet. */
int session_attach(struct session *s, struct process *p, enum session_when when, struct error *e);
int session_attach_new(struct session *s, enum session_when when, struct error *e);
void session_gone(void *ctx, struct process *p);
int session_check_groups(const struct session *s, struct error *e);
/* With the option owner: nothing of the tree may do what he may not. */
int session_check_owner(struct session *s, struct error *e);
/* rounds.c */
Ferry__Tree *session_tree_message(struct session *s);
int session_put_layout(struct session *s, struct stream_out *out, struct error *e);
int session_look_all(struct session *s, enum session_when when, struct error *e);
/* The phases of a round (state/memory/memory.h) over all processes. */
int session_collect_all(struct session *s, enum session_when when, struct error *e);
int session_send_all(struct session *s, struct stream_out *out, bool layout, bool final,
		     struct round_stats *st, struct error *e);
/* The first phase of a round, with all that comes before it: the tree and the layouts looked at, written
 * pages collected (@st: how long the target stood for it). The second for one process; one that has ended is
 * forgiven. */
int session_collect(struct session *s, struct round_stats *st, struct error *e);
int session_resolve(struct session *s, struct process *p, struct error *e);
void session_add_stats(struct round_stats *sum, const struct round_stats *st);
int session_send_one(struct session *s, struct process *p, struct stream_out *out, bool layout, bool final,
		     struct round_stats *st, struct error *e);
/* inherit.c: pages of this round, if some of the processes are new to the other side, so that those can be
 * cloned from others. Others' pages may be left. */
int session_pass_on(struct session *s, struct stream_out *out, bool layout, bool final,
		    struct round_stats *st, struct error *e);
/* A Tree goes to the other side, after the collect: whose skeletons will be made anew must be sent anew. */
void session_place_tree(struct session *s);
/* leave.c: post-copy, when the final round is resolved: what stays behind goes out of it. */
int session_leave(struct session *s, struct error *e);
/* The same for one process. */
int session_leave_of(struct session *s, struct process *p, struct error *e);
void session_leave_end(struct session *s); /* when all was sent: what did not stay */
uint64_t session_left_pages(const struct session *s);
/* capture.c: records of all kinds into s->snapshot; and out of the target again (its tasks stay stopped). */
int capture_state(struct session *s, struct error *e);
int capture_undo(struct session *s, struct error *e);
void session_emit_done(struct session *s, const char *verb, uint64_t bytes);
