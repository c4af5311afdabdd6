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
/* Hand @sock over, with @size bytes (LANE_TOKEN_MAX at most) that tell whose it is. 0; -ENOENT,
 * -ECONNREFUSED: nobody listens. The caller's copy stays its own. */
#define LANE_TOKEN_MAX 128
int lane_give(const char *path, int sock, int lane, const void *token, size_t size);
/* Take one: a socket, or -EAGAIN. What came with it has @size bytes, or it is not taken. */
int lane_take(int listener, int *ret_lane, void *token, size_t size);
