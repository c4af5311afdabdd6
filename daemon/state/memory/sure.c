/* SPDX-License-Identifier: Apache-2.0 */
/*
 * When mappings tell all that is written to a piece of shared memory.
 *
 * If they do, the frozen pass takes what they report and need not compare every page (shared.c): its time
 * does not grow with the memory.  They do if no other way leads to it, and none did for a moment:
 *
 *  - nobody has a descriptor of it: shared anonymous memory, System V segments; a memfd or a file on tmpfs
 *    when all of them are closed.  What a descriptor does (write, truncate, a mapping that comes and goes)
 *    leaves no sure trace, so such an object is compared while there is one (holders.c);
 *  - all mappings of it, in all processes of the tree, are tracked, and are exactly those of the last round:
 * what was written through one that is gone since is not known;
 *  - the backend says that nothing was done with them that it does not tell (shared_sure): a second mapping
 * made by mremap, pages taken away by madvise;
 *  - no process that maps it has forked (forks.c): a child's stores go through a page table that nobody
 * watches;
 *  - no process outside of the tree has it: looked for once, as later ones could only come by a fork.  Of a
 * segment the kernel counts the attachments, and says when and by whom the last one came or went;
 *  - no process that maps it reads files directly into memory (unseen.c).
 *
 * Each round asks all of this about the time since the last one.  If it was so, the whole object is compared
 * once more, with the target running; from then on it is sure, for as long as the answer stays the same.  The
 * comparison comes after the round has protected the pages, and the ways were watched from before that.
 *
 * What has no end that could be seen gets time to end: before that comparison a tenth of a second without
 * anything of the above (a call that began to take pages away before the memory was tracked), and pages read
 * before all calls have ended that were in progress at their protection are read again later (a call of
 * another process that holds a page and is about to write it).  A privileged process can open the memory
 * through /proc/PID/map_files; where the kernel tells of that (holders.c), it counts as noise.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/shm.h>
#include <sys/stat.h>
#include <time.h>
#include <xxhash.h>

#include "base/util.h"
#include "procfs/procfs.h"
#include "state/memory/named.h"
#include "track/calls.h"

#define CALM_NS     100000000ull
#define INIT_PID_NS 0xeffffffcu /* inode number of the first pid namespace (linux/nsfs.h) */
#define TICK_NS     10000000ull /* of start times */

/* It can have descriptors. */
static bool is_file(const struct memory_object *o)
{
	return o->kind == FERRY__OBJECT_KIND__OBJECT_MEMFD || o->kind == FERRY__OBJECT_KIND__OBJECT_TMPFS;
}

static bool may_be(const struct memory_object *o)
{
	return (o->kind == FERRY__OBJECT_KIND__OBJECT_SHMEM || o->kind == FERRY__OBJECT_KIND__OBJECT_SYSV ||
		is_file(o)) &&
	       !o->huge_page_size;
}

/* Of the time since it was asked last. */
static bool process_quiet(struct memory *m, struct memory_process *mp)
{
	bool told = mp->session && backend_shared_sure(&m->backend, mp->session);
	bool alone = forks_none(mp);

	return told && alone && !mp->unseen_writes;
}

static uint64_t mix(uint64_t h, uint64_t a, uint64_t b, uint64_t c)
{
	uint64_t v[] = {h, a, b, c};

	return XXH3_64bits(v, sizeof(v));
}

static void ask_process(struct memory *m, struct memory_process *mp)
{
	int quiet = -1;

	for (size_t i = 0; i < mp->mm->n_vmas; i++) {
		const Ferry__Vma *v = mp->mm->vmas[i];
		struct memory_object *o = v->object ? memory_object(m, v->object) : NULL;

		if (!o || !may_be(o))
			continue;
		if (quiet < 0)
			quiet = process_quiet(m, mp);
		o->quiet &= quiet && v->shared && page_set_covers(&mp->armed, v->start, v->end);
		o->mapped_now = mix(o->mapped_now, (uint64_t)mp->pid, v->start, v->end - v->offset);
		o->mapped_now = mix(o->mapped_now, v->offset, 0, 0);
		o->n_mapped++;
		o->collected = MAX(o->collected, mp->collected);
	}
}

/* Attachments of a segment, the same way as mappings. Not known, or of this very second: never the same. */
static void ask_segment(struct memory_object *o)
{
	struct shmid_ds ds;

	if (shmctl(o->sysv->id, IPC_STAT, &ds) < 0 || ds.shm_nattch != o->n_mapped ||
	    MAX(ds.shm_atime, ds.shm_dtime) + 1 >= time(NULL))
		o->quiet = false;
	else
		o->mapped_now = mix(o->mapped_now, (uint64_t)ds.shm_atime, (uint64_t)ds.shm_dtime,
				    (uint64_t)ds.shm_lpid);
}

/* --- processes outside of the tree ------------------------------------------------------------------ */

static bool sees_all(void)
{
	struct stat ns;

	return stat("/proc/self/ns/pid", &ns) == 0 && ns.st_ino == INIT_PID_NS;
}

/* Processes of other pid namespaces that we cannot see could have it only from a common ancestor, so it would
 * be older than the tree. (The clock that times of files are taken from can be set; the one of processes
 * cannot.) */
static bool is_younger(const struct memory_object *o, const struct process *root)
{
	struct statx sx;
	struct timespec boot, real;

	if (statx(o->fd, "", AT_EMPTY_PATH, STATX_BTIME, &sx) < 0 || !(sx.stx_mask & STATX_BTIME))
		return false;
	clock_gettime(CLOCK_BOOTTIME, &boot);
	clock_gettime(CLOCK_REALTIME, &real);
	int64_t began = (int64_t)(root->start_time * (1000000000ull / (uint64_t)sysconf(_SC_CLK_TCK)));
	int64_t age = boot.tv_sec * 1000000000ll + boot.tv_nsec - began;
	int64_t made = real.tv_sec * 1000000000ll + real.tv_nsec -
		       (sx.stx_btime.tv_sec * 1000000000ll + sx.stx_btime.tv_nsec);

	return made + (int64_t)TICK_NS < age;
}

static bool nobody_else(const struct memory *m, const struct memory_object *o)
{
	char comm[16];

	if (o->kind == FERRY__OBJECT_KIND__OBJECT_SYSV)
		return true; /* the count of attachments says it */
	return (sees_all() || (!is_file(o) && is_younger(o, m->tree->procs[0]))) &&
	       !memory_outside_mapper(m->tree, o->dev, o->ino, comm);
}

/* ------------------------------------------------------------------------------------------------- */

static void conclude(struct memory *m, struct memory_object *o, bool complete, bool final)
{
	uint64_t now = now_ns();

	if (o->kind == FERRY__OBJECT_KIND__OBJECT_SYSV)
		ask_segment(o);
	o->quiet &= complete && o->mapped_now == o->mapped;
	o->mapped = o->mapped_now;
	if (!o->quiet) {
		o->sure = o->alone = false;
		o->looks = 0;
		o->noisy = now;
		return;
	}
	if (final || o->sure || now - o->noisy < CALM_NS)
		return;
	if (!o->alone) {
		bool told = holders_watch(m, o);

		o->asked = told && is_file(o);
		o->alone = !is_file(o) && nobody_else(m, o);
	}
	o->ready = o->alone;
}

/* Those that could have descriptors, all by one look. */
static void ask_holders(struct memory *m)
{
	bool any = false;

	for (size_t i = 0; i < m->n_objects; i++)
		any |= m->objects[i]->asked;
	if (!any || !holders_look(m))
		return;
	for (size_t i = 0; i < m->n_objects; i++) {
		struct memory_object *o = m->objects[i];

		if (o->asked)
			o->ready = o->alone = o->looks >= HOLDERS_LOOKS && nobody_else(m, o);
	}
}

void memory_objects_ask(struct memory *m, bool final)
{
	bool complete = m->tree && m->backend.ops && m->backend.ops->shared_sure, any = false;

	holders_listen(m);
	for (size_t i = 0; i < m->n_objects; i++) {
		struct memory_object *o = m->objects[i];

		o->ready = o->asked = false;
		o->quiet = may_be(o) && !o->opened;
		o->opened = false;
		o->mapped_now = 1;
		o->n_mapped = 0;
		any |= may_be(o);
	}
	if (!complete || !any)
		return;
	for (size_t i = 0; i < m->tree->n; i++) {
		const struct process *p = m->tree->procs[i];
		struct memory_process *mp = p->data;

		if (p->state == PROCESS_ZOMBIE)
			continue;
		if (mp && mp->mm)
			ask_process(m, mp);
		else
			complete = false;
	}
	for (size_t i = 0; i < m->n_objects; i++)
		if (may_be(m->objects[i]))
			conclude(m, m->objects[i], complete, final);
	ask_holders(m);
}

/* --- the frozen pass --------------------------------------------------------------------------------- */

/* False: it is not what was armed. */
static bool collect_mapping(struct memory *m, struct memory_process *mp, const Ferry__Vma *v,
			    struct memory_object *o)
{
	const struct dirty_vma dv = {.kind = DIRTY_VMA_SHARED, .start = v->start, .end = v->end};
	const struct dirty_range *r;
	char why[256] = "";
	ssize_t n = backend_collect(&m->backend, mp->session, &dv, DIRTY_FINAL, &r, why, sizeof(why));

	for (ssize_t i = 0; i < n; i++)
		if (r[i].flags & DIRTY_WRITTEN)
			page_set_add(&o->dirty, r[i].start - v->start + v->offset,
				     r[i].end - v->start + v->offset);
	return n >= 0;
}

static void collect_process(struct memory *m, struct memory_process *mp)
{
	char why[256] = "";
	bool begun = false, well = true;

	for (size_t i = 0; i < mp->mm->n_vmas; i++) {
		const Ferry__Vma *v = mp->mm->vmas[i];
		struct memory_object *o = v->object ? memory_object(m, v->object) : NULL;

		if (!o || !o->sure)
			continue;
		if (!begun)
			well = backend_begin(&m->backend, mp->session, DIRTY_FINAL, why, sizeof(why)) == 0;
		begun = true;
		if (!well || !collect_mapping(m, mp, v, o))
			o->sure = false;
	}
	if (begun)
		backend_end(&m->backend, mp->session, DIRTY_FINAL, why, sizeof(why));
}

void memory_objects_collect(struct memory *m)
{
	for (size_t i = 0; m->tree && i < m->tree->n; i++) {
		struct memory_process *mp = m->tree->procs[i]->data;

		if (m->tree->procs[i]->state != PROCESS_ZOMBIE && mp && mp->mm && mp->session)
			collect_process(m, mp);
	}
}
