/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Between restore.c (records come in, skeletons follow) and prepare.c (skeletons become the target). */
#include "engine/restore.h"
#include "engine/skeleton.h"
#include "state/memory/named.h"

struct host_object {
	uint64_t id;
	int fd;
	bool ghost; /* content of a deleted file (SPACE_FILE) */
	bool huge;  /* hugetlb memory */
	enum object_origin origin;
};

struct restore {
	struct restore_options opt;
	const struct events *events;
	struct snapshot snapshot;
	struct rebuild rebuild;
	struct skeletons skeletons;
	struct host_object *objects;
	size_t n_objects, cap_objects;
	bool looked;  /* restore_look was content with the warm state */
	bool changed; /* tree, layout or objects came in since the skeletons were synced */
	bool unmade;  /* some of the tree may have no skeleton yet */
	bool started;
	struct lazy *lazy; /* processes of which pages are missing when they start */
	size_t n_lazy;
	struct lazy_object *lazy_objects; /* shared memory of which pages are missing */
	size_t n_lazy_objects;
	uint64_t announced; /* of allowance.c: memory that the source says it has */
	uint64_t untold,
		room; /* of allowance.c: bytes that came since the last look, and that there was room for */
	uint64_t sequence_pages;
	uint64_t t_sync, t_files, t_tasks;
};

/* Host descriptor of a shared memory object, or -1. */
int restore_object_fd(struct rebuild *rb, uint64_t id);

/* lazy.c: userfaultfds for what will be missing, while skeletons can still run batches; then, when nothing of
 * ours touches their memory any more, registered. */
int lazy_drop(struct restore *r, struct error *e);
int lazy_make(struct restore *r, struct error *e);
int lazy_arm(struct restore *r, struct error *e);
void lazy_free(struct restore *r);
/* restore_lazy.c: which pages of an image need not be read before the start. All state is known by then. */
int lazy_choose(struct restore *r, struct stream_in *in, struct error *e);
/* Prepared: somebody else sees to what is missing. */
int lazy_hand_over(struct restore *r, struct error *e);
