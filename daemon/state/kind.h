/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Kinds of state: one row in one table (state/kinds.c) each, capture and rebuild side by side in one file.
 *
 * Capture, target frozen:   ask() adds system calls to the batch of a process or thread; the engine runs all
 * batches at once; take() reads results, /proc and ptrace, and puts records into the snapshot. Rebuild, in
 * skeletons:    build() adds system calls to the batch of a process or thread, in table order; the engine
 * runs all batches at once; finish() does what ptrace does from outside (registers), last of all. While the
 * target runs:    preflight() refuses what cannot be captured; take_warm() records what the destination can
 * check() or prepare before the freeze.
 *
 * A slot may be NULL. Messages are heap trees: every pointer in them malloc'ed (xstrdup, xmemdup), so that
 * protobuf_c_message_free_unpacked(m, NULL) frees all.
 */
#include <stdbool.h>
#include <stdint.h>
#include <protobuf-c/protobuf-c.h>

#include "base/error.h"
#include "base/events.h"
#include "freeze/tree.h"
#include "parasite/batch.h"
#include "proto/image.pb-c.h"

struct inherited;

enum kind_scope {
	KIND_TREE,    /* once; process and thread are NULL, ask/build get no batch */
	KIND_PROCESS, /* per process that is not a zombie; its leader's batch; thread = leader */
	KIND_THREAD,  /* per thread; that thread's batch */
};

/* --manage-cgroups: must a group be there, is it made, is it set? */
enum cgroup_mode {
	CGROUPS_IGNORE,
	CGROUPS_NONE,   /* there; not set */
	CGROUPS_PROPS,  /* there; set */
	CGROUPS_SOFT,   /* made if it is not; set if it was made */
	CGROUPS_FULL,   /* made if it is not; set */
	CGROUPS_STRICT, /* not there; made and set */
};

/* Options that capture and rebuild look at; filled from the command line. */
struct state_options {
	bool tcp_close;       /* --tcp-close: established TCP connections arrive closed */
	bool tcp_established; /* --tcp-established: they go along */
	bool move_address;    /* --move-address: the addresses of sockets come along */
	bool shell_job;       /* -j */
	bool ext_unix_sk;
	bool file_locks;
	bool link_remap;
	uint64_t ghost_limit;  /* bytes; default 1 MiB */
	const char *root;      /* --root */
	const char *externals; /* --external: a list, made by state/files/external.h */
	enum cgroup_mode cgroups;
	/* --cgroup-root, lists made by state/cgroups/options.c: what groups are relative to, what they become
	 * relative to. */
	const char *cgroup_base, *cgroup_root;
	const struct inherited *inherited; /* --inherit-fd */
	size_t n_inherited;
};

/* --- a snapshot in memory ------------------------------------------------------------------------- */
struct snapshot_record {
	uint32_t type;    /* RecordType */
	int32_t pid, tid; /* 0, 0: of the tree; tid 0: of the process */
	bool warm;
	ProtobufCMessage *message; /* owned */
};

struct snapshot {
	struct snapshot_record *r;
	size_t n, cap;
	bool putting_warm; /* set while the target runs: what is put is marked warm */
	bool has_warm;
	bool sorted;
};
void snapshot_deinit(struct snapshot *s);
/* Append; takes ownership of @m. A record of the same type, pid and tid is replaced when it was warm. */
void snapshot_put(struct snapshot *s, uint32_t type, int32_t pid, int32_t tid, ProtobufCMessage *m);
/* First record of that type, pid and tid, or NULL. */
ProtobufCMessage *snapshot_find(const struct snapshot *s, uint32_t type, int32_t pid, int32_t tid);
void snapshot_drop_warm(struct snapshot *s);
/* Sort by (type, pid, tid): later finds are binary searches until the next put. The order within one type,
 * pid and tid is kept. */
void snapshot_sort(struct snapshot *s);

/* --- contexts --------------------------------------------------------------------------------- */
struct page_sink { /* where bulk data of a kind goes (ghost files, pipes are small and go into messages) */
	int (*put)(void *ctx, uint32_t space, uint64_t id, uint64_t addr, const void *data, uint64_t length,
		   struct error *e);
	void *ctx;
};

struct capture {
	struct tree *tree;
	const struct state_options *options;
	const struct events *events;
	struct snapshot *snapshot;
	struct page_sink pages;
	bool warm; /* target running: take_warm */
	bool leave_running;
	void *files;   /* of state/files: identity tables kept between warm and final */
	void *sockets; /* of state/sockets */
	void *tcp;     /* of state/sockets/tcp_capture.c */
	void *memory;  /* of state/memory */
	void *ipc;     /* of state/ipc */
	void *cgroups; /* of state/cgroups */
};

struct rebuild {
	struct tree *tree; /* skeletons, with the image's pids */
	const struct state_options *options;
	const struct events *events;
	struct snapshot *snapshot;
	/* Host-side objects of shared memory: id -> descriptor (state/memory/shmem.c). -1: none. */
	int (*object_fd)(struct rebuild *r, uint64_t id);
	/* Ghost file content received as SPACE_FILE pages: a memfd with the content, host owned, or -1. */
	int (*ghost_fd)(struct rebuild *r, uint64_t id);
	/* Run a batch in the leader of a skeleton at once, while kinds prepare (what depends on who does it:
	 * SO_PEERCRED). It must leave nothing open. NULL: not possible. */
	int (*run_in)(struct rebuild *r, struct process *p, struct batch *b, struct error *e);
	void *files;
	void *sockets;
	void *tcp; /* of state/sockets/tcp_rebuild.c */
	void *memory;
	void *ipc;
	void *cgroups; /* of state/cgroups */
};

/* Batch argument: the result of an entry that opened the host's pidfd inside the skeleton. files/fdtable.c
 * and memory use it to fetch host descriptors with pidfd_getfd(2). Appends the pidfd_open on first use in
 * this batch. */
unsigned rebuild_fetch_fd(struct batch *b,
			  int host_fd); /* returns the entry index whose result is the new fd (CLOEXEC) */

struct state_kind {
	const char *name; /* "task/signals" */
	uint32_t type;    /* RecordType */
	enum kind_scope scope;
	const ProtobufCMessageDescriptor *descriptor;

	/* Source, target running. Refuse (with pid, fd or address and kind in the text) or 0. */
	int (*preflight)(struct capture *c, struct process *p, struct error *e);
	/* Source, target running: put warm records. */
	int (*take_warm)(struct capture *c, struct process *p, struct thread *t, struct error *e);
	/* Source, target frozen: append to the batch. ctx: *ret_state is kept by the engine and given to take
	 * (offsets, indices); it is free()d by the engine afterwards. */
	int (*ask)(struct capture *c, struct process *p, struct thread *t, struct batch *b, void **ret_state,
		   struct error *e);
	/* Source, target frozen, batch done. */
	int (*take)(struct capture *c, struct process *p, struct thread *t, struct batch *b, void *state,
		    struct error *e);
	/* Destination, before anything is final: can this be rebuilt here? @m may be warm. */
	int (*check)(struct rebuild *r, int32_t pid, int32_t tid, const ProtobufCMessage *m, struct error *e);
	/* Destination: host-side preparation once all records are there, before any build of any kind
	 * (KIND_TREE kinds create objects here). */
	int (*prepare)(struct rebuild *r, const ProtobufCMessage *m, struct error *e);
	int (*build)(struct rebuild *r, struct process *p, struct thread *t, const ProtobufCMessage *m,
		     struct batch *b, struct error *e);
	/* Destination: thread is in a ptrace stop, batch done and the region gone. */
	int (*finish)(struct rebuild *r, struct process *p, struct thread *t, const ProtobufCMessage *m,
		      struct error *e);
};

extern const struct state_kind *const state_kinds[]; /* in order of rebuild; NULL-terminated */
const struct state_kind *state_kind_find(uint32_t type);
