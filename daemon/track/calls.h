/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * The calls of a backend in a real session, with the target in our hands.
 *
 * A plugin is code of others. One that crashes takes the worker with it, and its supervisor puts the target
 * right; one that hangs would hold the target for ever. So each call is noted where the supervisor can read
 * it, and a thread that does nothing else ends the worker when one call takes longer than the limit: the rest
 * is as with a crash. The limit counts the time that this process may run: while it is stopped it does not.
 */
#include "track/backend.h"

struct call_watch;

/* From now on calls of @b may take @limit_ms. Until backend_close(). 0 or -errno. */
int backend_watch(struct backend *b, unsigned limit_ms);
void call_watch_free(struct call_watch *w); /* NULL is fine */

/* The slots of the same names; see ferry/dirty_backend.h. */
int backend_attach(const struct backend *b, const struct dirty_target *t, struct dirty_session **ret,
		   char *why, size_t why_size);
int backend_begin(const struct backend *b, struct dirty_session *s, enum dirty_collect_mode mode, char *why,
		  size_t why_size);
int backend_arm(const struct backend *b, struct dirty_session *s, const struct dirty_vma *v, char *why,
		size_t why_size);
ssize_t backend_collect(const struct backend *b, struct dirty_session *s, const struct dirty_vma *v,
			enum dirty_collect_mode mode, const struct dirty_range **ret_ranges, char *why,
			size_t why_size);
int backend_end(const struct backend *b, struct dirty_session *s, enum dirty_collect_mode mode, char *why,
		size_t why_size);
void backend_detach(const struct backend *b, struct dirty_session *s);
/* Of slots that may be NULL: what that stands for. */
bool backend_shared_sure(const struct backend *b, struct dirty_session *s);
bool backend_still_there(const struct backend *b, struct dirty_session *s, uint64_t start, uint64_t end);
bool backend_owns(const struct backend *b, struct dirty_session *s, const struct dirty_vma *v);
