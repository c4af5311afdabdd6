/* SPDX-License-Identifier: Apache-2.0 */
/*
 * System V semaphores.  Values are set by semop(2): semctl(2) would change the time by which a set that is
 * still there is known, and forget what the ends of processes are to undo.
 *
 * All that is done to one semaphore in one call happens at once, so it can be taken through values that are
 * nobody's business: {-now}, {+what the undo needs}...
 */
#include <errno.h>
#include <sys/ipc.h>
#include <sys/sem.h>
#include <sys/syscall.h>

#include "base/util.h"
#include "state/ipc/ipc.h"
#include "state/ipc/next_id.h"

#define TRIES 20 /* somebody else may make one between the two steps */

/* --- reading -------------------------------------------------------------------------------------------- */

static bool is_gone(int err)
{
	return err == EINVAL || err == EIDRM;
}

int sem_count(int id, struct error *e)
{
	struct semid_ds ds;

	if (semctl(id, 0, IPC_STAT, (union sem_argument){.buf = &ds}) == 0)
		return (int)ds.sem_nsems;
	return is_gone(errno) ? -ENOENT : error_set(e, errno, "look at System V semaphore set %d", id);
}

int sem_read(int id, size_t n, Ferry__SemaphoreSet *m, struct error *e)
{
	cleanup_free unsigned short *values = xcalloc(n + 1, sizeof(*values));

	if (semctl(id, 0, GETALL, (union sem_argument){.array = values}) < 0)
		return is_gone(errno) ? -ENOENT : error_set(e, errno, "read System V semaphore set %d", id);
	m->values = xcalloc(n + 1, sizeof(*m->values));
	m->pids = xcalloc(n + 1, sizeof(*m->pids));
	m->n_values = m->n_pids = n;
	for (size_t i = 0; i < n; i++) {
		int pid = semctl(id, (int)i, GETPID);

		if (pid < 0)
			return is_gone(errno)
				       ? -ENOENT
				       : error_set(e, errno, "System V semaphore set %d: ask for a pid", id);
		m->values[i] = values[i];
		m->pids[i] = pid;
	}
	return 0;
}

/* --- a set ---------------------------------------------------------------------------------------------- */

/* 1: the very set is here. 0: the id is free. */
static int find(const Ferry__SemaphoreSet *s, struct error *e)
{
	struct semid_ds ds;

	if (semctl(s->id, 0, IPC_STAT, (union sem_argument){.buf = &ds}) < 0)
		return is_gone(errno) ? 0 : error_set(e, errno, "look for System V semaphore set %d", s->id);
	if (ds.sem_perm.__key == s->owner->key && ds.sem_nsems == s->n_values &&
	    ds.sem_ctime == s->owner->ctime && ds.sem_perm.cuid == s->owner->cuid)
		return 1;
	return error_say(e, EEXIST,
			 "System V semaphore set id %d is taken here by another set (key 0x%x, %lu "
			 "semaphores; ipcrm -s "
			 "%d removes it)",
			 s->id, ds.sem_perm.__key, ds.sem_nsems, s->id);
}

static int need_owner(const Ferry__SemaphoreSet *s, struct error *e)
{
	return s->owner && s->n_values && s->n_values == s->n_pids
		       ? 0
		       : error_say(e, EPROTO, "the image says too little of System V semaphore set %d",
				   s->id);
}

int sem_check(const Ferry__SemaphoreSet *s, struct error *e)
{
	int r = need_owner(s, e), id;

	if (r >= 0)
		r = find(s, e);
	if (r != 0 || !s->owner->key)
		return r < 0 ? r : 0;
	id = semget(s->owner->key, 0, 0);
	if (id < 0)
		return errno == ENOENT
			       ? 0
			       : error_set(e, errno, "look for System V semaphore key 0x%x", s->owner->key);
	return error_say(e, EEXIST,
			 "System V semaphore key 0x%x is taken here by set %d (ipcrm -s %d removes it)",
			 s->owner->key, id, id);
}

static int get_set(void *ctx, key_t key)
{
	const Ferry__SemaphoreSet *s = ctx;

	return semget(key, (int)s->n_values, IPC_CREAT | IPC_EXCL | (int)s->owner->mode);
}

static int set_owner(const Ferry__SemaphoreSet *s, struct error *e)
{
	const Ferry__IpcOwner *o = s->owner;
	struct semid_ds ds = {.sem_perm = {.uid = o->uid, .gid = o->gid, .mode = (unsigned short)o->mode}};

	if (o->uid == o->cuid && o->gid == o->cgid)
		return 0;
	return semctl(s->id, 0, IPC_SET, (union sem_argument){.buf = &ds}) < 0
		       ? error_set(e, errno, "set the owner of System V semaphore set %d", s->id)
		       : 0;
}

int sem_make(const Ferry__SemaphoreSet *s, struct error *e)
{
	int r = need_owner(s, e), id = -1;

	if (r >= 0)
		r = find(s, e);
	for (int i = 0; r == 0 && i < TRIES; i++) {
		id = next_id_get("sem", s->id, s->owner->cuid, s->owner->cgid, s->owner->key, get_set,
				 (void *)s, e);
		if (error_is(e))
			return id;
		if (id < 0)
			return error_set(e, -id, "make System V semaphore set %d (key 0x%x, %zu semaphores)",
					 s->id, s->owner->key, s->n_values);
		if (id == s->id) {
			r = set_owner(s, e);
			if (r < 0)
				semctl(id, 0, IPC_RMID);
			return r;
		}
		semctl(id, 0, IPC_RMID);
		r = find(s, e);
		if (r > 0)
			return error_say(e, EEXIST, "System V semaphore set id %d is taken", s->id);
	}
	return r ? r
		 : error_say(e, EEXIST, "System V semaphore set id %d cannot be had here (got %d)", s->id,
			     id);
}

/* --- its values ----------------------------------------------------------------------------------------- */

struct ops {
	struct sembuf v[SEMAPHORE_CALLS];
	size_t n;
};

/* An operation of 0 would wait for that value. */
static void add_op(struct ops *o, size_t number, int by, bool undo)
{
	if (by)
		o->v[o->n++] = (struct sembuf){.sem_num = (unsigned short)number,
					       .sem_op = (short)by,
					       .sem_flg = (short)(IPC_NOWAIT | (undo ? SEM_UNDO : 0))};
}

static void flush(struct batch *b, int id, struct ops *o)
{
	if (o->n)
		batch_call(b, "set a System V semaphore", SYS_semop, ARG(id),
			   ARG_PUT(b, o->v, o->n * sizeof(o->v[0])), ARG(o->n));
	o->n = 0;
}

/* The end of the process is to add @adjust, so what makes it so has subtracted that. */
static void add_undo(struct ops *o, size_t number, int now, int adjust)
{
	int size = adjust < 0 ? -adjust : adjust;

	add_op(o, number, -now, false);
	add_op(o, number, size, adjust < 0);
	add_op(o, number, -size, adjust > 0);
	add_op(o, number, now, false);
}

static int fill_undo(struct rebuild *r, int id, const unsigned short *now, size_t n, const Ferry__Undo *u,
		     pid_t pid, struct error *e)
{
	struct process *p = tree_find(r->tree, pid);
	struct batch b = BATCH_INIT;
	struct ops o = {.n = 0};
	int x = 0;

	for (size_t i = 0; i < u->n_entries && x >= 0; i++) {
		const Ferry__SemaphoreUndo *a = u->entries[i];

		if (a->set != id)
			continue;
		if (!p || !p->data || a->number >= n || a->adjust < -SEMAPHORE_MAX ||
		    a->adjust > SEMAPHORE_MAX)
			x = error_say(e, EPROTO,
				      "pid %d: the image has an undo of semaphore %u of set %d by %d", pid,
				      a->number, id, a->adjust);
		if (o.n + 4 > SEMAPHORE_CALLS)
			flush(&b, id, &o);
		if (x >= 0)
			add_undo(&o, a->number, now[a->number], a->adjust);
	}
	flush(&b, id, &o);
	if (x >= 0 && b.n)
		x = r->run_in(r, p, &b, e);
	batch_deinit(&b);
	return x;
}

/* One that nobody has touched yet, here or there, stays so. */
static bool untouched(const Ferry__SemaphoreSet *s, size_t i, int now)
{
	return !s->pids[i] && (int)s->values[i] == now;
}

/* Those that were last used by the process of semaphore @first. */
static int fill_values(struct rebuild *r, const Ferry__SemaphoreSet *s, const unsigned short *now,
		       size_t first, bool *done, struct error *e)
{
	struct process *p = ipc_process(r, s->pids[first]);
	struct batch b = BATCH_INIT;
	struct ops o = {.n = 0};

	for (size_t i = first; i < s->n_values; i++) {
		if (done[i] || ipc_process(r, s->pids[i]) != p)
			continue;
		done[i] = true;
		if (o.n + 4 > SEMAPHORE_CALLS)
			flush(&b, s->id, &o);
		add_op(&o, i, -now[i], false);
		add_op(&o, i, (int)s->values[i], false);
		if (!now[i] && !s->values[i]) { /* only to be remembered as its user */
			add_op(&o, i, 1, false);
			add_op(&o, i, -1, false);
		}
	}
	flush(&b, s->id, &o);
	int x = b.n ? r->run_in(r, p, &b, e) : 0;

	batch_deinit(&b);
	return x;
}

int sem_fill(struct rebuild *r, const Ferry__SemaphoreSet *s, struct error *e)
{
	cleanup_free unsigned short *now = xcalloc(s->n_values, sizeof(*now));
	cleanup_free bool *done = xcalloc(s->n_values, sizeof(*done));
	int x = 0;

	if (semctl(s->id, 0, GETALL, (union sem_argument){.array = now}) < 0)
		return error_set(e, errno, "read System V semaphore set %d", s->id);
	for (size_t i = 0; i < r->snapshot->n && x >= 0; i++) {
		const struct snapshot_record *rec = &r->snapshot->r[i];

		if (rec->type == FERRY__RECORD_TYPE__RECORD_UNDO)
			x = fill_undo(r, s->id, now, s->n_values, (const Ferry__Undo *)rec->message, rec->pid,
				      e);
	}
	for (size_t i = 0; i < s->n_values; i++)
		done[i] = untouched(s, i, now[i]);
	for (size_t i = 0; i < s->n_values && x >= 0; i++)
		if (!done[i])
			x = fill_values(r, s, now, i, done, e);
	return x < 0 ? error_prefix(e, "System V semaphore set %d", s->id) : 0;
}

void sem_put_back(const Ferry__SemaphoreSet *was)
{
	cleanup_free unsigned short *now = xcalloc(was->n_values, sizeof(*now));

	if (semctl(was->id, 0, GETALL, (union sem_argument){.array = now}) < 0)
		return;
	for (size_t i = 0; i < was->n_values; i++) {
		struct ops o = {.n = 0};

		if (now[i] == was->values[i])
			continue;
		add_op(&o, i, -now[i], false);
		add_op(&o, i, (int)was->values[i], false);
		semop(was->id, o.v, o.n);
	}
}
