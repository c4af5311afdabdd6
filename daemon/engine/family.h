/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Making the processes and threads of a skeleton tree (root.c, family.c); skeleton.c gives them their memory.
 */
#include "engine/skeleton.h"

/* The root, stopped in the stub. @dead_session: the leader of its session is dead and was outside the tree.
 */
int family_make_root(struct skeletons *s, const Ferry__TreeProcess *tp, bool dead_session, struct error *e);
/* A process whose parent is there. @holder: whose memory and layout it inherits, its parent or a sibling;
 * 0: nobody's. */
int family_make(struct skeletons *s, const Ferry__Tree *tree, const Ferry__TreeProcess *tp, pid_t holder,
		struct error *e);
/* All processes are there: sessions and groups. */
int family_settle(struct skeletons *s, const Ferry__Tree *tree, struct error *e);
int family_sync_threads(struct process *p, const Ferry__TreeProcess *tp, struct error *e);
/* Processes that ended, or whose pid belongs to another process now, go, their children with them. */
void family_drop_stale(struct skeletons *s, const Ferry__Tree *tree);
/* Kill one, have it reaped by its parent, take it out of the tree. */
void family_kill(struct skeletons *s, struct process *p);
int family_new_data(struct process *p, const Ferry__TreeProcess *tp, struct error *e);
