/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Slowing a target down through the CPU controller of its cgroup: it runs on, sees no signal and no
 * interrupted system call, and gets less of the time.  Where it has no such controller it is frozen by the
 * freezer of a cgroup, for a part of each 20 ms.  Everything is undone by throttle_free(), or, if we are
 * killed, by a process of its own that waits for our end.
 */
#include <stdint.h>

#include "base/error.h"
#include "freeze/tree.h"

struct throttle;

/* Nothing is changed yet but the place of the tree among the cgroups. Looks for a tenth of a second how much
 * it runs. Negative: there is no such controller, or not for us; @e says why. Without @may_freeze only the
 * CPU controller will do. */
int throttle_new(struct throttle **ret, const struct tree *tree, bool may_freeze, struct error *e);
bool throttle_freezes(const struct throttle *t);
/* CPUs that it used. */
double throttle_full(const struct throttle *t);
int throttle_set(struct throttle *t, double cpus, struct error *e);
/* Full speed at once; the rest is undone later. */
void throttle_lift(struct throttle *t);
/* NULL is fine. */
void throttle_free(struct throttle *t);
