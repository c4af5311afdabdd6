/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* What the halves of io_uring share: io_uring_look.c (what only the kernel knows), io_uring.c (capture),
 * io_uring_idle.c (waiting for requests), io_uring_ring.c (the rings themselves), io_uring_rebuild.c. */
#include <linux/io_uring.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/error.h"
#include "state/files/fd_type.h"

#define RING_FD_SLOTS 16 /* descriptors a thread can register */

/* By age of linux/io_uring.h. */
#define RING_NO_MMAP      (1u << 14)
#define RING_NO_SQARRAY   (1u << 16)
#define RING_HYBRID       (1u << 17)
#define RING_SKIP_SUCCESS (1u << 6) /* IOSQE_CQE_SKIP_SUCCESS */

#define RING_KNOWN_FLAGS                                                                                     \
	(IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP | IORING_SETUP_SUBMIT_ALL | IORING_SETUP_COOP_TASKRUN |    \
	 IORING_SETUP_TASKRUN_FLAG | IORING_SETUP_SQE128 | IORING_SETUP_CQE32 | IORING_SETUP_SINGLE_ISSUER | \
	 IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_ATTACH_WQ | RING_NO_SQARRAY)

bool ring_is(const char *link);

/* --- what the kernel knows ------------------------------------------------------------------------------ */
struct ring_index { /* a thread has registered the descriptor under a number */
	pid_t tid;
	unsigned index;
};

struct ring_look {
	uint32_t flags;
	const char *extra; /* something registered that cannot be made again; NULL: nothing */
	int64_t in_flight; /* requests of all threads that have used the ring (of their other rings, too) */
	uint64_t issuer;   /* the only task that may use it, 0: any */
	uint64_t eventfd;  /* the kernel's context of the registered eventfd, 0: none */
	bool eventfd_async;
	struct ring_index *indexes; /* owned */
	size_t n_indexes;
};
void ring_look_deinit(struct ring_look *l);
/* @copy: our own descriptor of it. */
int ring_look(int copy, struct ring_look *ret, struct error *e);
int ring_issuer(const struct ring_look *l, pid_t *ret, struct error *e);
/* Registered files: `struct file` of each slot, 0 where there is none. malloc'ed. */
int ring_files(int copy, uint64_t **ret, size_t *ret_n, struct error *e);
/* Is a registered buffer more than memory of the process (tagged, the kernel's)? */
int ring_buffers_plain(int copy, bool *ret, struct error *e);

/* --- the rings ------------------------------------------------------------------------------------------ */
struct ring_map { /* our mapping of one */
	struct io_uring_params p;
	uint8_t *rings, *sqes;
	size_t rings_size, sqes_size;
};
#define RING_N_OFFSETS 14
void ring_offsets(const struct io_uring_params *p, uint32_t ret[RING_N_OFFSETS]);
size_t ring_cqe_size(uint32_t flags);
size_t ring_sqe_size(uint32_t flags);
/* How this kernel makes one of this kind: flags and entries in, all else out. Returns its descriptor. */
int ring_make(uint32_t flags, uint32_t sq_entries, uint32_t cq_entries, struct io_uring_params *p);
int ring_map(int fd, const struct io_uring_params *p, struct ring_map *ret);
void ring_unmap(struct ring_map *m);
uint32_t *ring_word(const struct ring_map *m, uint32_t offset);

/* Who may submit. */
struct ring_submitter {
	/* io_uring_enter(2) with so many requests; returns how many were taken. */
	int (*enter)(void *ctx, uint32_t n, struct error *e);
	/* So many times: with as many as the ring has entries, after each of which all completions are read.
	 * NULL: that is no cheaper at once than one by one. */
	int (*laps)(void *ctx, uint32_t n, struct error *e);
	void *ctx;
};
/* Bring the counters of a new ring to those of @m: the kernel has its own copies of them, so that means
 * requests that do nothing. May be called again with later ones. @fd: ours. */
int ring_advance(const struct ring_map *map, int fd, const struct ring_submitter *s, const Ferry__IoUring *m,
		 struct error *e);
/* How many requests that takes. */
uint64_t ring_distance(const struct ring_map *map, const Ferry__IoUring *m);
/* Contents, and what the program writes itself. */
void ring_fill(const struct ring_map *map, const Ferry__IoUring *m);

/* --- rebuild -------------------------------------------------------------------------------------------- */
int io_uring_check(struct rebuild *r, const FileDescription *m, struct error *e);
int io_uring_open(struct rebuild *r, const FileDescription *m, int *ret_fd, struct error *e);
int io_uring_connect(struct rebuild *r, const FileDescription *m, struct error *e);
int io_uring_place(struct rebuild *r, const FileDescription *m, struct process *p, int fd, struct batch *b,
		   struct error *e);
