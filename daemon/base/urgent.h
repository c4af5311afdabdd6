/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * While a target stands, what we do comes before other work on the machine: with its CPUs busy, every wait of
 * ours for one of them is downtime.  SCHED_RR with the least priority, or, where that is not granted, the
 * best nice value, or, where neither is, nothing.  Children that are made meanwhile have the usual policy.
 * Targets and skeletons are not made urgent: what a real-time policy does to a task (its timer slack is gone)
 * does not come back.
 */

/* All threads of this process. A thread that somebody gave another policy than the usual one keeps it. */
void urgent_begin(void);
/* As it was before. Harmless without the other. */
void urgent_end(void);
