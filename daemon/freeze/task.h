/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * One thread under ptrace: the primitives everything else is made of.  All calls must come from the
 * host thread that seized the task (ptrace(2)).
 *
 * Signals that reach a seized task are never lost: those met while stopping it are delivered there and then
 * (the task stops before the first instruction of the handler), and while it runs our code all are blocked
 * but SIGSTOP, which takes effect at once and shows when the task is released.
 */
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "arch/arch.h"
#include "base/error.h"

enum task_state {
	TASK_RUNNING, /* seized, not stopped */
	TASK_STOPPED, /* in a ptrace stop; registers can be read and written */
	TASK_GONE,    /* exited or killed; nothing more can be done to it */
};

struct task {
	pid_t pid, tid; /* process and thread, as seen by the host */
	enum task_state state;
	bool seized;
	bool group_stopped; /* was stopped by SIGSTOP before we came: released into that state */
	bool skeleton;      /* ours to kill: seized with EXITKILL, registers need no undo */
	bool saved;         /* saved_regs/saved_mask hold the state to return to */
	struct arch_regs saved_regs;
	uint64_t saved_mask;    /* the mask to return to (PTRACE_GETSIGMASK) */
	uint64_t saved_rseq_cs; /* value of rseq_cs at the stop, 0: none or not inside (danger: injection
				   clears it) */
	uint64_t rseq_addr;     /* 0: not registered */
	uint32_t rseq_len, rseq_sig;
	uint64_t syscall_insn; /* address of a system call instruction in its memory, 0: not yet looked up */
	uint64_t spin; /* the same, in the unused end of the vdso, with code written there for as long as
			  needed */
	bool spin_armed;
	bool masked;   /* everything blocked by us */
	bool waited;   /* for a userfaultfd's monitor, when the tree was to be stopped, ... */
	bool asked;    /* ... and was asked to stop */
	bool filtered; /* has a seccomp filter, or strict is set: suspended as long as we trace it */
	bool strict;   /* was seen in the strict mode of seccomp when it ran; set from outside */
};

enum task_stop {
	TASK_STOP_NONE,    /* nothing happened */
	TASK_STOP_EVENT,   /* PTRACE_EVENT_STOP: interrupted, or group stop */
	TASK_STOP_SYSCALL, /* entry or exit of a system call */
	TASK_STOP_CHILD,   /* fork, vfork or clone of a skeleton */
	TASK_STOP_SIGNAL,  /* about to take a signal */
	TASK_STOP_GONE,
};

/* Called for each PTRACE_EVENT_FORK/VFORK/CLONE stop met while waiting for a task that has those options set.
 */
typedef void (*task_new_child_fn)(void *ctx, pid_t child);

/* PTRACE_SEIZE without stopping. Options: TRACESYSGOOD always; SUSPEND_SECCOMP for skeletons
 * where it can be had (a target gets it at task_save); EXITKILL + TRACECLONE/FORK for skeletons only. -EPERM
 * names another tracer (TracerPid) if that is why. Returns 0; -ESRCH (gone: no error text filled); other
 * -errno with @e filled. */
int task_seize(struct task *t, pid_t pid, pid_t tid, bool skeleton, struct error *e);
/* PTRACE_INTERRUPT. */
int task_interrupt(struct task *t, struct error *e);
/* What happened to the task, without waiting. *ret_sig: the signal of a signal or group stop. */
enum task_stop task_poll(struct task *t, int *ret_sig);
/* The same, waiting for it without limit. */
enum task_stop task_wait(struct task *t, int *ret_sig);
/* Wait until stopped after task_interrupt. Bounded: @timeout_ms, then -ETIMEDOUT with the thread's state and
 * wchan in the text (an uninterruptible sleep). Returns 0; 1 when the task is gone. */
int task_wait_stopped(struct task *t, int timeout_ms, struct error *e);

/* The error of a thread that does not stop. Returns -ETIMEDOUT. */
int task_explain_timeout(struct task *t, int timeout_ms, struct error *e);

/* Read registers, mask and rseq_cs into saved_*, once per stop, before the first change. */
int task_save(struct task *t, struct error *e);
/* Put saved registers, mask and rseq_cs back. */
int task_restore(struct task *t, struct error *e);
/* The same, but the task stays saved: more changes may follow. */
int task_put_back(struct task *t, struct error *e);
/* Block (or unblock) everything: PTRACE_SETSIGMASK. */
int task_set_mask(struct task *t, uint64_t mask, struct error *e);

/* Run one system call in a stopped task by ptrace (two system call stops); the task must have been saved
 * (or be a skeleton). All signals are blocked while it runs; a saved task is then put back. The call's own
 * result (negative errno included) goes to *ret.
 * @on_child, may be NULL: told about each child or thread this call made (then stopped and traced too,
 * EVENT_STOP). Returns 0, or -errno when the call could not be run (-ESRCH: killed). */
int task_syscall(struct task *t, long nr, const uint64_t args[6], int64_t *ret, task_new_child_fn on_child,
		 void *ctx, struct error *e);

/* Let this thread of a skeleton, its first, end by itself while the others stay: it is TASK_GONE afterwards,
 * and nothing is to be collected of it before those have ended. */
int task_end_first(struct task *t, int status, struct error *e);

/* Let a stopped task run (PTRACE_CONT with no signal). */
int task_cont(struct task *t, struct error *e);
/* Restore (if saved) and detach: runs, or is in group stop again if it was.
 * Does its best to the end; first failure in @e. A task that is gone is no failure. */
int task_release(struct task *t, struct error *e);
/* A stopped skeleton is to outlive us: when we end, it goes on as a detached task does, instead of being
 * killed. -ESRCH when it is gone. */
int task_disown(struct task *t, struct error *e);
/* A stopped task with a SIGSTOP waiting takes it and throws it away, in two steps so that many can do it at
 * once; it stays stopped, and is to be released next. Registers and mask are as before. */
int task_swallow_stop(struct task *t, struct error *e);
int task_swallow_stop_end(struct task *t, struct error *e);
/* Make @t a task that came to us stopped and traced: a child of a traced task. */
void task_adopt(struct task *t, pid_t pid, pid_t tid, bool skeleton);
/* Resume a stopped task, giving it a signal or 0. @request: PTRACE_CONT or PTRACE_SYSCALL. -ESRCH when it is
 * gone. */
int task_resume(struct task *t, int request, int sig, struct error *e);
/* Find and remember an address of a system call instruction (the vdso first, then other executable VMAs). */
int task_find_syscall(struct task *t, struct error *e);
