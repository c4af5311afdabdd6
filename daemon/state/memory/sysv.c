/* SPDX-License-Identifier: Apache-2.0 */
/*
 * System V shared memory.
 *
 * A segment is known by its id: programs keep it, so it must be the same at the destination.
 * /proc/sys/kernel/shm_next_id asks the kernel for it.  In maps a segment shows as /SYSV and the key it was
 * made with, and its id is its inode number (which may be that of some other kernel-internal file too:
 * objects of this kind are only compared with one another).
 *
 * A segment that is marked for removal goes with its last attachment, so the mark is set at the very end.
 * Others outlive the processes: at the source they stay when the tree leaves.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <unistd.h>

#include "base/util.h"
#include "state/ipc/next_id.h"
#include "state/memory/named.h"

#define TRIES 20 /* somebody else may make a segment between the two steps */

#ifndef SHM_DEST
#define SHM_DEST   01000
#define SHM_LOCKED 02000
#endif

/* --- source ----------------------------------------------------------------------------------------- */

static void fill(Ferry__SysvSegment *s, const struct shmid_ds *ds)
{
	s->key = ds->shm_perm.__key;
	s->mode = ds->shm_perm.mode;
	s->uid = ds->shm_perm.uid;
	s->gid = ds->shm_perm.gid;
	s->cuid = ds->shm_perm.cuid;
	s->cgid = ds->shm_perm.cgid;
	s->cpid = ds->shm_cpid;
	s->ctime = ds->shm_ctime;
}

int sysv_note(struct memory_object *o, int id, struct error *e)
{
	struct shmid_ds ds;

	if (o->sysv)
		return 0;
	if (shmctl(id, IPC_STAT, &ds) < 0)
		return error_set(e, errno, "look at System V shared memory segment %d (%s)", id, o->name);
	o->sysv = xmalloc(sizeof(*o->sysv));
	ferry__sysv_segment__init(o->sysv);
	o->sysv->id = id;
	fill(o->sysv, &ds);
	o->sysv->name_key = strtoul(o->name + strlen("/SYSV"), NULL, 16);
	o->size = ds.shm_segsz;
	return 0;
}

/* One that is gone was marked for removal, and has been detached by all. */
void sysv_refresh(struct memory_object *o)
{
	struct shmid_ds ds;

	if (shmctl(o->sysv->id, IPC_STAT, &ds) == 0)
		fill(o->sysv, &ds);
	else
		o->sysv->mode |= SHM_DEST;
}

static uint64_t count_attached(const struct tree *t, uint64_t object)
{
	uint64_t n = 0;

	for (size_t i = 0; i < t->n; i++) {
		const struct memory_process *mp = t->procs[i]->data;

		for (size_t j = 0; mp && mp->mm && j < mp->mm->n_vmas; j++)
			n += mp->mm->vmas[j]->sysv_size && mp->mm->vmas[j]->object == object;
	}
	return n;
}

int sysv_check_outside(struct capture *c, struct error *e)
{
	const struct memory *m = c->memory;

	for (size_t i = 0; i < m->n_objects; i++) {
		const struct memory_object *o = m->objects[i];
		struct shmid_ds ds;
		char comm[16];

		if (!o->sysv || shmctl(o->sysv->id, IPC_STAT, &ds) < 0 ||
		    ds.shm_nattch <= count_attached(c->tree, o->id))
			continue;
		/* Of a running tree the count may be old: only who is found is refused. */
		pid_t pid = memory_outside_mapper(c->tree, o->dev, o->ino, comm);

		if (pid)
			return error_say(e, ENOTSUP,
					 "System V shared memory segment %d (key 0x%x) is also attached by "
					 "pid %d (%s), which is not in the tree",
					 o->sysv->id, o->sysv->name_key, pid, comm);
	}
	return 0;
}

/* --- destination ------------------------------------------------------------------------------------ */

static int need_part(const Ferry__Object *o, struct error *e)
{
	return o->sysv ? 0
		       : error_say(e, EPROTO, "the image says nothing of System V segment %llu",
				   (unsigned long long)o->id);
}

/* 1: the very segment is here and nobody has it attached. 0: the id is free. */
static int find(const Ferry__Object *o, struct error *e)
{
	const Ferry__SysvSegment *s = o->sysv;
	struct shmid_ds ds;

	if (shmctl(s->id, IPC_STAT, &ds) < 0) {
		if (errno == EINVAL || errno == EIDRM)
			return 0;
		return error_set(e, errno, "look for System V shared memory segment %d", s->id);
	}
	if (ds.shm_perm.__key != s->key || ds.shm_segsz != o->size || ds.shm_cpid != s->cpid ||
	    ds.shm_ctime != s->ctime || ds.shm_perm.cuid != s->cuid)
		return error_say(e, EEXIST,
				 "System V shared memory segment id %d is taken here by another segment "
				 "(key 0x%x, %llu bytes, made by pid %d; ipcrm -m %d removes it)",
				 s->id, ds.shm_perm.__key, (unsigned long long)ds.shm_segsz, ds.shm_cpid,
				 s->id);
	if (ds.shm_nattch)
		return error_say(e, EBUSY,
				 "System V shared memory segment %d is attached by %llu others here", s->id,
				 (unsigned long long)ds.shm_nattch);
	return 1;
}

int sysv_check(const Ferry__Object *o, struct error *e)
{
	int r = need_part(o, e), id;

	if (r >= 0)
		r = find(o, e);
	if (r != 0 || !o->sysv->key)
		return r < 0 ? r : 0;
	id = shmget(o->sysv->key, 0, 0);
	if (id < 0)
		return errno == ENOENT ? 0
				       : error_set(e, errno, "look for System V shared memory key 0x%x",
						   o->sysv->key);
	return error_say(
		e, EEXIST,
		"System V shared memory key 0x%x is taken here by segment %d (ipcrm -m %d removes it)",
		o->sysv->key, id, id);
}

struct segment {
	size_t size;
	int mode;
};

static int get_segment(void *ctx, key_t key)
{
	const struct segment *s = ctx;

	return shmget(key, s->size, IPC_CREAT | IPC_EXCL | s->mode);
}

static int make(const Ferry__Object *o, struct error *e)
{
	const Ferry__SysvSegment *s = o->sysv;
	key_t key = s->mode & SHM_DEST ? (key_t)s->name_key : s->key;
	struct segment want = {o->size, s->mode & 0777};
	int id = -1;

	for (int i = 0; i < TRIES; i++) {
		id = next_id_get("shm", s->id, s->cuid, s->cgid, key, get_segment, &want, e);
		if (error_is(e))
			return id;
		/* The key of one that is marked for removal is free again: another may have it, and this one
		 * only loses the name that maps shows. */
		if (id == -EEXIST && s->mode & SHM_DEST && key) {
			key = IPC_PRIVATE;
			continue;
		}
		if (id < 0)
			return error_set(e, -id,
					 "make System V shared memory segment %d (key 0x%x, %llu bytes)",
					 s->id, key, (unsigned long long)o->size);
		if (id == s->id)
			return 0;
		shmctl(id, IPC_RMID, NULL);
		int r = find(o, e);

		if (r != 0)
			return r < 0 ? r : error_say(e, EEXIST, "System V segment id %d is taken", s->id);
	}
	return error_say(e, EEXIST, "System V shared memory segment id %d cannot be had here (got %d)", s->id,
			 id);
}

/* Our own descriptor of the memory behind it. */
static int open_segment(const Ferry__Object *o, int *ret_fd, struct error *e)
{
	void *p = shmat(o->sysv->id, NULL, 0);

	if (p == (void *)-1)
		return error_set(e, errno, "attach System V shared memory segment %d", o->sysv->id);
	cleanup_free char *path = xasprintf("/proc/self/map_files/%lx-%lx", (unsigned long)p,
					    (unsigned long)p + PAGE_ROUND_UP(o->size));
	int fd = open(path, O_RDWR | O_CLOEXEC), err = errno;

	shmdt(p);
	if (fd < 0)
		return error_set(e, err, "open %s", path);
	*ret_fd = fd;
	return 0;
}

int sysv_create(const Ferry__Object *o, int *ret_fd, struct error *e)
{
	int r = need_part(o, e), found = r < 0 ? r : find(o, e);

	if (found < 0)
		return found;
	r = found ? 0 : make(o, e);
	if (r < 0)
		return r;
	r = open_segment(o, ret_fd, e);
	if (r < 0 && !found)
		shmctl(o->sysv->id, IPC_RMID, NULL);
	return r < 0 ? r : found ? OBJECT_FOUND : OBJECT_MADE;
}

int sysv_finish(const Ferry__Object *o, struct error *e)
{
	const Ferry__SysvSegment *s = o->sysv;
	struct shmid_ds ds = {.shm_perm = {.uid = s->uid, .gid = s->gid, .mode = s->mode & 0777}}, now;

	if (shmctl(s->id, IPC_STAT, &now) < 0)
		return error_set(e, errno, "look at System V shared memory segment %d", s->id);
	bool differs = now.shm_perm.uid != s->uid || now.shm_perm.gid != s->gid ||
		       ((now.shm_perm.mode ^ s->mode) & 0777);

	if (differs && shmctl(s->id, IPC_SET, &ds) < 0)
		return error_set(e, errno, "set owner and mode of System V shared memory segment %d", s->id);
	if (s->mode & SHM_LOCKED && shmctl(s->id, SHM_LOCK, NULL) < 0)
		return error_set(e, errno, "lock System V shared memory segment %d", s->id);
	if (s->mode & SHM_DEST && shmctl(s->id, IPC_RMID, NULL) < 0)
		return error_set(e, errno, "mark System V shared memory segment %d for removal", s->id);
	return 0;
}

/* Only if it is still what we made: its id cannot have been given away before that. */
void sysv_discard(const Ferry__Object *o)
{
	if (o->sysv)
		shmctl(o->sysv->id, IPC_RMID, NULL);
}
