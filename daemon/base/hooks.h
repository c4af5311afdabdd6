/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Points of a capture or restore at which a program may step in (--action-script).  @action is one of
 *
 *	pre-dump       before the target is touched         (called by the program)
 *	network-lock   target frozen, before its state is taken
 *	post-dump      images valid, target still frozen: a failure here lets the target run on
 *	network-unlock the target runs on here after all (SESSION_RUN, SESSION_STOP, any failure after
 *network-lock) pre-restore    before anything is built             (called by the program) post-restore
 *everything is built, nothing runs yet: a failure here leaves nothing of the tree pre-resume     the same,
 *directly before the start post-resume    the tree runs; the result is ignored
 *
 * @root is the root's pid, 0 while it is not known.  Actions without a remark are called by the engine.
 */
#include <sys/types.h>

#include "base/error.h"

struct hooks {
	int (*run)(void *ctx, const char *action, pid_t root, struct error *e);
	void *ctx;
};

/* @h may be NULL or empty: nothing happens. 0, or -errno with @e filled. */
static inline int hooks_run(const struct hooks *h, const char *action, pid_t root, struct error *e)
{
	return h && h->run ? h->run(h->ctx, action, root, e) : 0;
}
