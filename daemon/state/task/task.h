/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Kinds of process and thread state except memory and files.
 *
 * Order of the table (state/kinds.c).  Entries of one batch run in this order; the batches of a process's
 * threads run at the same time, and the leader's has the process kinds too:
 *
 *	namespaces       no records, refusals only
 *	memory, objects  exe and PR_SET_MM_MAP before limits and creds; rseq and robust lists use the memory
 *	files, sockets   before limits (RLIMIT_NOFILE, RLIMIT_FSIZE) and creds (permissions)
 *	kind_sched       from outside, in finish
 *	kind_process     oom_score_adj, subreaper, core dump filter
 *	kind_thread      robust list, clear_child_tid, rseq, signal stack, name, timer slack, personality
 *	kind_sigactions  before sigpending: setting an action to "ignore" empties queues
 *	kind_sigpending  before timers (what they raise comes last) and limits (RLIMIT_SIGPENDING)
 *	kind_timers      late, so that little of the time left passes; before limits, which count timers
 *	kind_limits      before creds: needs the privilege of the daemon
 *	kind_seccomp     before creds: needs the privilege of the daemon; the filters act when the thread is
 *let go kind_creds       last of all: drops privilege; then pdeathsig and dumpable, which it resets kind_regs
 *no batch, only finish: registers, xstate, rseq_cs and, at the very end, the mask
 *
 * take() of sigpending and regs uses ptrace: the thread must be in a ptrace stop by then (its runner
 * stopped, its saved registers not needed to be back).  Timers are read in the batch, so before the queues.
 */
#include "state/kind.h"

extern const struct state_kind kind_regs, kind_thread, kind_sigactions, kind_sigpending, kind_timers,
	kind_creds, kind_limits, kind_sched, kind_process, kind_seccomp;
