/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which semaphores and message queues are the tree's.
 *
 * The kernel does not know: it remembers who used each semaphore last, and who sent to and received from each
 * queue last.  One with a process of the tree among them is the tree's.  With a living process outside of the
 * tree among them as well it is shared with that and refused.  One that nobody living is known to have used
 * is the tree's if it was made since the root was started, by a user that one of its processes is or can
 * become: it may be about to be used.  One that was the tree's once remains so, as others may have the last
 * turn.  A thread that waits for one counts as well, which is looked at while the tree runs.
 */
#include "state/ipc/ipc.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/util.h"
#include "procfs/procfs.h"
#include "state/files/files.h"
#include "state/task/message.h"

#ifndef SEM_STAT_ANY
#define SEM_STAT_ANY 20
#endif
#ifndef MSG_STAT_ANY
#define MSG_STAT_ANY 13
#endif

struct ipc_capture {
	Ferry__Ipc *found;
	bool frozen;          /* what it was found in */
	struct index_map own; /* (id, is a queue) of what was found to be the tree's */
	struct index_map waited;
};

struct use {
	pid_t inside, outside; /* one of each, 0: none */
};

static struct ipc_capture *capture_of(struct capture *c)
{
	if (!c->ipc)
		c->ipc = xcalloc(1, sizeof(struct ipc_capture));
	return c->ipc;
}

static void drop_found(struct ipc_capture *x)
{
	if (x->found)
		ferry__ipc__free_unpacked(x->found, NULL);
	x->found = NULL;
}

void ipc_capture_free(struct capture *c)
{
	struct ipc_capture *x = c->ipc;

	if (!x)
		return;
	drop_found(x);
	index_map_deinit(&x->own);
	index_map_deinit(&x->waited);
	free(x);
	c->ipc = NULL;
}

/* --- whose is it? --------------------------------------------------------------------------------------- */

static void note_use(struct capture *c, struct use *u, pid_t pid)
{
	if (pid <= 0 || pid == u->inside || pid == u->outside)
		return;
	if (tree_find(c->tree, pid) || (!c->tree->frozen && tree_includes(c->tree, pid)))
		u->inside = pid;
	else if (kill(pid, 0) == 0 || errno != ESRCH)
		u->outside = pid;
}

static void note_thread(struct capture *c, struct ipc_capture *x, pid_t pid, pid_t tid)
{
	cleanup_free char *path = xasprintf("/proc/%d/task/%d/syscall", pid, tid), *text = NULL;
	unsigned long nr, id;

	(void)c;
	if (read_file(path, &text) <= 0 || sscanf(text, "%lu 0x%lx", &nr, &id) != 2)
		return;
	if (nr == SYS_semop || nr == SYS_semtimedop)
		*index_map_at(&x->waited, id, 0) = 1;
	else if (nr == SYS_msgsnd || nr == SYS_msgrcv)
		*index_map_at(&x->waited, id, 1) = 1;
}

static void note_waiting(struct capture *c, struct ipc_capture *x)
{
	for (size_t i = 0; i < c->tree->n; i++)
		for (size_t j = 0; j < c->tree->procs[i]->n_threads; j++)
			note_thread(c, x, c->tree->procs[i]->pid, c->tree->procs[i]->threads[j]->task.tid);
}

/* When the root was started, in seconds of the wall clock; not too late. */
static int64_t started(const struct tree *t)
{
	struct timespec now, up;

	clock_gettime(CLOCK_REALTIME, &now);
	clock_gettime(CLOCK_BOOTTIME, &up);
	return now.tv_sec - up.tv_sec + (int64_t)(t->procs[0]->start_time / (uint64_t)sysconf(_SC_CLK_TCK)) -
	       1;
}

/* A process that is this user, or could become anybody. */
static bool has_user(const struct tree *t, uid_t uid)
{
	for (size_t i = 0; i < t->n; i++) {
		struct proc_status s = {0};
		struct error gone = ERROR_INIT;
		bool found = false;

		if (proc_status_read(t->procs[i]->pid, 0, &s, &gone) < 0)
			continue;
		for (int k = 0; k < 4; k++)
			found |= s.uid[k] == uid || s.uid[k] == 0;
		proc_status_deinit(&s);
		if (found)
			return true;
	}
	return false;
}

/* 1: the tree's, 0: not. Refuses what is shared with others. */
static int decide(struct capture *c, const struct use *u, bool queue, int id, const Ferry__IpcOwner *o,
		  struct error *e)
{
	struct ipc_capture *x = capture_of(c);
	uint32_t *own = index_map_at(&x->own, id, queue);
	struct error ignore = ERROR_INIT;
	struct proc_stat st = {.comm = "?"};

	if (u->inside || index_map_find(&x->waited, id, queue))
		*own = 1;
	if (!*own && !u->outside && o->ctime >= started(c->tree) && has_user(c->tree, o->cuid))
		*own = 1;
	if (!*own || !u->outside)
		return *own != 0;
	proc_stat_read(u->outside, 0, &st, &ignore);
	return error_say(
		e, ENOTSUP,
		"pid %d: System V %s %d (key 0x%x) is also used by pid %d (%s), which is not in the tree",
		u->inside ? u->inside : c->tree->procs[0]->pid, queue ? "message queue" : "semaphore set", id,
		o->key, u->outside, st.comm);
}

/* --- looking at all --------------------------------------------------------------------------------------
 */

void ipc_fill_owner(Ferry__IpcOwner **ret, const void *ipc_perm, int64_t ctime)
{
	const struct ipc_perm *p = ipc_perm;
	Ferry__IpcOwner *o = MESSAGE_NEW(Ferry__IpcOwner, ferry__ipc_owner);

	o->key = p->__key;
	o->mode = p->mode & 0777;
	o->uid = p->uid;
	o->gid = p->gid;
	o->cuid = p->cuid;
	o->cgid = p->cgid;
	o->ctime = ctime;
	*ret = o;
}

/* 1: taken up, 0: not the tree's, or gone. */
static int look_at_set(struct capture *c, int index, struct error *e)
{
	Ferry__Ipc *all = capture_of(c)->found;
	struct semid_ds ds;
	struct use u = {0};
	int id = semctl(index, 0, SEM_STAT_ANY, (union sem_argument){.buf = &ds});

	if (id < 0)
		return 0;
	Ferry__SemaphoreSet *s = MESSAGE_NEW(Ferry__SemaphoreSet, ferry__semaphore_set);

	s->id = id;
	ipc_fill_owner(&s->owner, &ds.sem_perm, ds.sem_ctime);
	int r = sem_read(id, ds.sem_nsems, s, e);

	for (size_t i = 0; r >= 0 && i < s->n_pids; i++)
		note_use(c, &u, s->pids[i]);
	if (r >= 0)
		r = decide(c, &u, false, id, s->owner, e);
	if (r > 0) {
		all->sets = xrealloc(all->sets, (all->n_sets + 1) * sizeof(*all->sets));
		all->sets[all->n_sets++] = s;
		return 1;
	}
	ferry__semaphore_set__free_unpacked(s, NULL);
	return r == -ENOENT && !error_is(e) ? 0 : r;
}

static int look_at_queue(struct capture *c, int index, struct error *e)
{
	Ferry__Ipc *all = capture_of(c)->found;
	struct msqid_ds ds;
	struct use u = {0};
	int id = msgctl(index, MSG_STAT_ANY, &ds);

	if (id < 0)
		return 0;
	Ferry__MessageQueue *q = MESSAGE_NEW(Ferry__MessageQueue, ferry__message_queue);

	q->id = id;
	ipc_fill_owner(&q->owner, &ds.msg_perm, ds.msg_ctime);
	q->max_bytes = ds.msg_qbytes;
	q->sender = ds.msg_lspid;
	q->receiver = ds.msg_lrpid;
	note_use(c, &u, q->sender);
	note_use(c, &u, q->receiver);
	int r = decide(c, &u, true, id, q->owner, e);

	if (r > 0) {
		all->queues = xrealloc(all->queues, (all->n_queues + 1) * sizeof(*all->queues));
		all->queues[all->n_queues++] = q;
		return 1;
	}
	ferry__message_queue__free_unpacked(q, NULL);
	return r;
}

static int look(struct capture *c, struct error *e)
{
	struct ipc_capture *x = capture_of(c);
	struct seminfo sems;
	struct msginfo queues;
	int last_set = semctl(0, 0, SEM_INFO, (union sem_argument){.buf = &sems});
	int last_queue = msgctl(0, MSG_INFO, (struct msqid_ds *)(void *)&queues);
	bool any = (last_set >= 0 && sems.semusz) || (last_queue >= 0 && queues.msgpool);
	int r = 0;

	x->found = MESSAGE_NEW(Ferry__Ipc, ferry__ipc);
	if (any && !c->tree->frozen)
		note_waiting(c, x);
	for (int i = 0; any && i <= last_set && r >= 0; i++)
		r = look_at_set(c, i, e);
	for (int i = 0; any && i <= last_queue && r >= 0; i++)
		r = look_at_queue(c, i, e);
	return r;
}

int ipc_scan(struct capture *c, bool anew, const Ferry__Ipc **ret, struct error *e)
{
	struct ipc_capture *x = capture_of(c);
	int r = 0;

	if (anew || !x->found || x->frozen != c->tree->frozen) {
		drop_found(x);
		x->frozen = c->tree->frozen;
		r = look(c, e);
		if (r < 0)
			drop_found(x);
	}
	*ret = x->found;
	return r < 0 ? r : 0;
}
