/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Things of System V IPC are made again under their id, which the kernel is asked for in
 * /proc/sys/kernel/{shm,sem,msg}_next_id, and by their creator, whom it never forgets.
 */
#include <sys/types.h>

#include "base/error.h"

/* Make one: the id, or -1 and errno. */
typedef int (*next_id_make)(void *ctx, key_t key);

/* @what: "shm", "sem" or "msg". Calls @make as the user @uid and group @gid, with the next id asked for.
 * Returns the id that it became, which may be another one, or -errno of @make (without text), or of the
 * asking (with). */
int next_id_get(const char *what, int id, uid_t uid, gid_t gid, key_t key, next_id_make make, void *ctx,
		struct error *e);
