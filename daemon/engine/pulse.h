/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * A cgroup that is frozen and let go in turns, many times a second, by a process of its own.  However that
 * process ends by itself, the cgroup is left as it is when nobody freezes it; if it is killed, whoever waits
 * for it (the guard of engine/throttle_guard.c) has to let the cgroup go.
 */
#include "base/error.h"

struct pulse;

int pulse_new(struct pulse **ret, const char *dir, struct error *e);
/* Become that process, a child of who calls. It ends when the process that made @p does, and when its parent
 * does. */
_Noreturn void pulse_run(struct pulse *p);
/* In the process that made it, from here on. When that process is there. */
int pulse_begin(struct pulse *p, struct error *e);
/* Run for this part of the time. 1: all of it, from when this returns. */
void pulse_set(struct pulse *p, double share);
/* That process has ended, somehow. */
void pulse_let_go(const struct pulse *p);
/* After its end. NULL-safe. */
void pulse_free(struct pulse *p);
