/* SPDX-License-Identifier: Apache-2.0 */
/* Shared memory that has moved with the tree and would stay here without it: by its name, or its System V id.
 */
#include <errno.h>
#include <string.h>
#include <sys/shm.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/events.h"
#include "state/memory/named.h"

static bool is_ours(const struct memory_object *o)
{
	struct stat st;

	return lstat(o->name, &st) == 0 && st.st_dev == o->dev && st.st_ino == o->ino;
}

static void remove_file(const struct capture *c, const struct memory_object *o)
{
	char comm[16];

	if (!o->file || *o->file->outside || !is_ours(o) ||
	    memory_outside_mapper(c->tree, o->dev, o->ino, comm))
		return;
	if (unlink(o->name) < 0)
		events_log(c->events, 2, "%s, which moved along, stays here: %s", o->name, strerror(errno));
	else
		events_log(c->events, 3, "%s, which moved along, is removed here", o->name);
}

static void remove_segment(const struct capture *c, const struct memory_object *o)
{
	struct shmid_ds ds;
	int id = o->sysv->id;

	if (shmctl(id, IPC_STAT, &ds) < 0 || ds.shm_nattch || ds.shm_perm.mode & SHM_DEST)
		return;
	if (shmctl(id, IPC_RMID, NULL) < 0)
		events_log(c->events, 2,
			   "System V shared memory segment %d, which moved along, stays here: %s", id,
			   strerror(errno));
	else
		events_log(c->events, 3,
			   "System V shared memory segment %d, which moved along, is removed here", id);
}

void memory_remove_moved(const struct capture *c, const uint64_t *made, size_t n)
{
	const struct memory *m = c->memory;

	for (size_t i = 0; i < m->n_objects; i++) {
		const struct memory_object *o = m->objects[i];
		bool there = false;

		for (size_t j = 0; j < n && !there; j++)
			there = made[j] == o->id;
		if (there && o->kind == FERRY__OBJECT_KIND__OBJECT_TMPFS)
			remove_file(c, o);
		else if (there && o->sysv)
			remove_segment(c, o);
	}
}
