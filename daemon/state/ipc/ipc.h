/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * System V semaphores and message queues.  No process has them open, so whose they are is decided by who has
 * used them (scan.c); they are known by id and key, and outlive the processes, as System V shared memory does
 * (state/memory/sysv.c).
 *
 * Values are set, and messages sent, by the skeletons of those who used them last: the kernel remembers their
 * pids, programs can ask for them, and so can we, at the next move.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/error.h"
#include "proto/ipc.pb-c.h"
#include "state/kind.h"

/* In place of union semun, which every user has to define. */
union sem_argument {
	int val;
	void *buf;
	unsigned short *array;
};

#define SEMAPHORE_MAX   32767 /* SEMVMX and SEMAEM */
#define SEMAPHORE_CALLS 30    /* operations in one semop(2): SEMOPM is at least 32 */

extern const struct state_kind kind_ipc, kind_undo;

/* --- for the engine ----------------------------------------------------------------------------------- */
void ipc_capture_free(struct capture *c);
/* @started: the tree runs; otherwise what was made or changed here goes back. NULL-safe. */
void ipc_rebuild_free(struct rebuild *r, bool started);

/* --- within state/ipc ----------------------------------------------------------------------------------- */
/* What the tree uses; without the messages. Looked for once while the tree runs and once when it is frozen,
 * unless @anew. */
int ipc_scan(struct capture *c, bool anew, const Ferry__Ipc **ret, struct error *e);
void ipc_fill_owner(Ferry__IpcOwner **ret, const void *ipc_perm, int64_t ctime);

/* Values and pids of a set of @n. */
int sem_read(int id, size_t n, Ferry__SemaphoreSet *m, struct error *e);
/* Number of semaphores in the set; -ENOENT without text: gone. */
int sem_count(int id, struct error *e);
/* Copies of all messages, which stay. */
int queue_read(Ferry__MessageQueue *m, struct error *e);

/* Destination. check: free, or the very one? make: 1 it was here, 0 it was made. discard: the rebuild failed.
 */
int sem_check(const Ferry__SemaphoreSet *s, struct error *e);
int sem_make(const Ferry__SemaphoreSet *s, struct error *e);
/* Values, undo and pids. */
int sem_fill(struct rebuild *r, const Ferry__SemaphoreSet *s, struct error *e);
int queue_check(const Ferry__MessageQueue *q, struct error *e);
int queue_make(const Ferry__MessageQueue *q, struct error *e);
int queue_fill(struct rebuild *r, const Ferry__MessageQueue *q, struct error *e);
/* The same by this process, in place of what is there: a rebuild that failed puts back what was found. */
void sem_put_back(const Ferry__SemaphoreSet *was);
void queue_put_back(const Ferry__MessageQueue *was);

/* The skeleton that is to stand for @pid, or that of the root. */
struct process *ipc_process(struct rebuild *r, pid_t pid);
