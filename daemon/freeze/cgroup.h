/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* The cgroup freezer, both versions, named by its directory. */
#include <stdbool.h>
#include <sys/types.h>

#include "base/error.h"

/* Freeze and wait until it is frozen. *ret_was_frozen: it was so before. On failure it is thawed again. */
int cgroup_freeze(const char *dir, int timeout_ms, bool *ret_was_frozen, struct error *e);
/* Put @who into the cgroups that @whom is in, but for a freezer's of version 1; best effort. How many. */
int cgroup_follow(pid_t who, pid_t whom);
/* @frozen: the state to set, without waiting. */
int cgroup_set(const char *dir, bool frozen, struct error *e);
bool cgroup_is_frozen(const char *dir);
/* Version 1, where a frozen thread does not report a ptrace stop. */
bool cgroup_is_v1(const char *dir);
