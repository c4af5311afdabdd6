/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * The target: a process tree, found and stopped.  Also used for skeletons (then built by engine/skeleton.c
 * instead of scanned).  Processes are ordered parents before children.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/error.h"
#include "freeze/task.h"

enum process_state {
	PROCESS_ALIVE,
	PROCESS_STOPPED, /* job-control stop (state T) */
	PROCESS_ZOMBIE,
};

struct thread {
	struct task task; /* task.tid is the thread id; threads[0] is the leader, if that has not ended */
	struct process *process;
	void *data; /* of the engine (runner of this thread) */
};

struct process {
	pid_t pid, ppid, pgid, sid;
	enum process_state state;
	int exit_status; /* zombies, and a leader that ended: wait status as in /proc/PID/stat, field 52 */
	uint64_t start_time; /* field 22: tells a reused pid */
	char comm[16];
	struct process *parent; /* NULL for the root */
	struct thread **threads;
	size_t n_threads;
	int pidfd;     /* owned; -1 for zombies */
	pid_t living;  /* 0, or the leader has ended and others run: one of those, see process_living() */
	int living_fd; /* owned: a pidfd of that thread; 0: none */
	bool held;     /* a skeleton for which a SIGSTOP of ours waits (engine/start.c) */
	void *data;    /* of the engine: the parasite region of this process and its bookkeeping */
};

/* When its first thread has ended, /proc and the kernel show nothing of a process's memory and files under
 * its own number: then it goes by that of a living thread. */
static inline pid_t process_living(const struct process *p)
{
	return p->living ? p->living : p->pid;
}

/* The same for pidfd_getfd(2). */
static inline int process_living_fd(const struct process *p)
{
	return p->living_fd > 0 ? p->living_fd : p->pidfd;
}

struct tree {
	struct process **procs; /* parents first; procs[0] is the root */
	size_t n;
	bool frozen;
	bool userfaults;     /* as in freeze_options */
	char *freeze_cgroup; /* owned */
};

struct freeze_options {
	const char *freeze_cgroup; /* NULL: ptrace interrupt */
	bool userfaults;           /* the tree handles page faults itself (userfaultfd) */
	int timeout_ms;            /* bound for a thread in uninterruptible sleep; default 10,000 */
};

/* Refuse what can never be captured: pid missing, kernel thread, the caller or an ancestor of it, pid 1 of
 * the caller's pid namespace, a zombie root. Cheap; the target is not touched. */
int tree_check_root(pid_t root, struct error *e);
/* List the tree while it runs (may be stale at once). */
int tree_scan(pid_t root, struct tree **ret, struct error *e);
/* Rescan in place while it runs: processes and threads that are still the same (pid, start time) keep their
 * structs and `data`; vanished ones are handed to @gone (may be NULL) and freed. Returns the number of
 * changes. */
int tree_rescan(struct tree *t, void (*gone)(void *ctx, struct process *p), void *ctx, struct error *e);
/* Refuse processes that share one memory without being threads of one process, but for a vfork that is under
 * way. @outside: also with any process that is not of the tree; else only with the parent of the root. */
int tree_check_sharing(struct tree *t, bool outside, struct error *e);
/* Seize and stop all threads of all processes, looking again until nothing new appears. Updates the tree in
 * place like tree_rescan. On failure everything is released and runs on as before. */
int tree_freeze(struct tree *t, const struct freeze_options *opt, void (*gone)(void *ctx, struct process *p),
		void *ctx, struct error *e);
/* Release all tasks (undoing saved changes). Always goes through the whole tree; first failure in @e. */
int tree_thaw(struct tree *t, struct error *e);
/* SIGKILL every process of the frozen tree (children too), wait until they are gone. Used after the commit.
 */
int tree_kill(struct tree *t, struct error *e);
void tree_free(struct tree *t);
struct process *tree_find(struct tree *t, pid_t pid);
/* Is @pid of the tree, or a child made since it was last looked at? */
bool tree_includes(struct tree *t, pid_t pid);
struct process *tree_add_process(struct tree *t, pid_t pid, struct process *parent);
struct thread *process_add_thread(struct process *p, pid_t tid);
