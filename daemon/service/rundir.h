/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * The run directory, /run/ferry or $FERRY_RUN_DIR (mode 0700): jobs/TARGET-VERB.sock, keepers/TARGET.sock,
 * ferryd.sock. A socket nobody listens at is a leftover of a process that was killed, and swept when it is
 * met.  The lock makes "is anyone at work on this target? then it is me" one step.
 */
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/error.h"

const char *rundir_path(void);
/* malloc'ed. */
char *rundir_job_path(pid_t target, const char *verb);
char *rundir_keeper_path(pid_t target);

/* Make the directory (and its two subdirectories) if need be and lock it: *ret_fd, closed to unlock. */
int rundir_lock(int *ret_fd, struct error *e);
/* Listening SOCK_SEQPACKET socket, nonblocking and CLOEXEC, mode 0600. A stale file in its place is removed;
 * -EADDRINUSE if it lives. */
int rundir_listen(const char *path, struct error *e);
/* Connected socket (CLOEXEC), or -errno: -ENOENT, or -ECONNREFUSED after removing a stale file. Requests time
 * out after 5 s if @timeout. */
int rundir_connect(const char *path, bool timeout);
/* The same without any wait, and nonblocking; -1 if that cannot be had. */
int rundir_connect_now(const char *path);
/* Is a job at work on @target? */
bool rundir_has_job(pid_t target);
/* Call @each with every living socket in @subdir ("jobs", "keepers") of @target (0: any): path and a
 * connection that is closed afterwards. Stops when @each returns non-zero, and returns that. */
int rundir_each(const char *subdir, pid_t target, int (*each)(void *ctx, const char *path, int sock),
		void *ctx);

/* Who is at the other end of a control socket? */
enum control_right {
	CONTROL_NONE,
	CONTROL_OWN, /* member of the group: errands for processes of his own */
	CONTROL_ALL, /* root, or the user that ferryd runs as */
};
/* @gid: of the group; -1: there is none. */
enum control_right control_right(int sock, int64_t gid, uid_t *ret_uid);

/* Members of the group may connect to @sock, a listening socket of a path: the path becomes theirs, and if it
 * lies in the run directory they may pass through that. */
int rundir_let_group(int sock, gid_t gid, struct error *e);
