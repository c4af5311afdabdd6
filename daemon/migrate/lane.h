/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Connections over which a source serves pages (*lanes*), at the destination: each comes to a process of its
 * own, which hands it to the one that fetches.
 */
#include "base/error.h"
#include "migrate/journal.h"

/* Where the one that fetches listens; malloc'ed. */
char *lane_path(const char *dir, const char *uuid);
/* Its state (engine/pager.h); malloc'ed. */
char *lane_state_path(const char *dir, const char *uuid);
/* Listening socket, nonblocking, or -errno. */
int lane_listen(const char *path, struct error *e);
/* Connected, or -errno: -ENOENT, -ECONNREFUSED: nobody listens. */
int lane_connect(const char *path);
/* Hand @sock over. 0; -ENOENT, -ECONNREFUSED: nobody listens. The caller's copy stays its own. */
int lane_give(const char *path, int sock, int lane);
/* Take one: a socket, or -EAGAIN. */
int lane_take(int listener, int *ret_lane);
