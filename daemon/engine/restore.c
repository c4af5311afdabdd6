/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The rebuild pipeline.  Records are kept in a snapshot; the first page run that follows a change of tree or
 *layout brings the skeletons up to date, so that a stream from disk and one from a running source take the
 *same path:
 *
 *	feed      state is kept, skeletons follow, pages go into place
 *	check     can this be rebuilt here?  (after each round of a migration, with the target still running
 *over there) prepare   descriptors and objects are made here, one batch per thread rebuilds the rest inside,
 *zombies die, the region goes, registers are set: everything but the start start     detach
 */
#include "engine/rebuild.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/wait.h>

#include "arch/arch.h"
#include "base/util.h"
#include "engine/allowance.h"
#include "engine/kin.h"
#include "engine/skeleton.h"
#include "state/cgroups/cgroups.h"
#include "state/files/files.h"
#include "state/ipc/ipc.h"
#include "state/memory/memory.h"

static struct host_object *find_object(struct restore *r, uint64_t id, bool ghost)
{
	for (size_t i = 0; i < r->n_objects; i++)
		if (r->objects[i].id == id && r->objects[i].ghost == ghost)
			return &r->objects[i];
	return NULL;
}

static void add_object(struct restore *r, struct host_object o)
{
	if (r->n_objects == r->cap_objects) {
		r->cap_objects = r->cap_objects ? r->cap_objects * 2 : 16;
		r->objects = xrealloc(r->objects, r->cap_objects * sizeof(*r->objects));
	}
	r->objects[r->n_objects++] = o;
}

int restore_object_fd(struct rebuild *rb, uint64_t id)
{
	struct restore *r = (struct restore *)((char *)rb - offsetof(struct restore, rebuild));
	struct host_object *o = find_object(r, id, false);

	return o ? o->fd : -1;
}

static int ghost_fd(struct rebuild *rb, uint64_t id)
{
	struct restore *r = (struct restore *)((char *)rb - offsetof(struct restore, rebuild));
	struct host_object *o = find_object(r, id, true);

	return o ? o->fd : -1;
}

static int run_in(struct rebuild *rb, struct process *p, struct batch *b, struct error *e)
{
	int x = skeleton_run(p, e);

	(void)rb;
	return x < 0 ? x : runner_run(((struct skeleton *)p->data)->runner, b, e);
}

int restore_new(struct restore **ret, const struct restore_options *o, const struct events *ev,
		struct error *e)
{
	struct restore *r = xcalloc(1, sizeof(*r));

	(void)e;
	r->opt = *o;
	r->events = ev;
	r->skeletons.tree = xcalloc(1, sizeof(struct tree));
	r->skeletons.sibling = o->sibling;
	r->skeletons.detached = o->detached;
	r->skeletons.shell_job = o->state.shell_job;
	r->skeletons.rebuild = &r->rebuild;
	r->rebuild = (struct rebuild){.tree = r->skeletons.tree,
				      .options = &r->opt.state,
				      .events = ev,
				      .snapshot = &r->snapshot,
				      .object_fd = restore_object_fd,
				      .ghost_fd = ghost_fd,
				      .run_in = run_in};
	*ret = r;
	return 0;
}

/* --- feeding --------------------------------------------------------------------------------------- */

static int check_inventory(const Ferry__Inventory *i, struct error *e)
{
	if (i->version > 1)
		return error_say(e, EPROTONOSUPPORT, "the image is of version %u, this ferry reads up to 1",
				 i->version);
	if (strcmp(i->arch, arch_name()))
		return error_say(e, EINVAL, "the image is of architecture %s, this machine is %s", i->arch,
				 arch_name());
	if (i->page_size != PAGE_SIZE_BYTES)
		return error_say(e, EINVAL, "the image has pages of %u bytes, this machine %lu", i->page_size,
				 PAGE_SIZE_BYTES);
	if (i->pre_dump)
		return error_say(
			e, EINVAL,
			"this image is a pre-dump: it holds memory only and cannot be restored by itself");
	return 0;
}

static int sync_objects(struct restore *r, struct error *e)
{
	const Ferry__Objects *os =
		(const Ferry__Objects *)snapshot_find(&r->snapshot, FERRY__RECORD_TYPE__RECORD_OBJECTS, 0, 0);

	for (size_t i = 0; os && i < os->n_objects; i++) {
		const Ferry__Object *o = os->objects[i];
		struct host_object *h = find_object(r, o->id, false);
		struct stat st;
		int fd;

		if (!h) {
			int x = object_create(o, &fd, e);

			if (x < 0)
				return x;
			add_object(r, (struct host_object){o->id, fd, false, o->huge_page_size, x});
		} else if (h->origin != OBJECT_SAME && fstat(h->fd, &st) == 0 &&
			   (uint64_t)st.st_size != o->size && ftruncate(h->fd, o->size) < 0) {
			return error_set(e, errno, "resize shared memory object %s to %llu", o->name,
					 (unsigned long long)o->size);
		}
	}
	return 0;
}

static int check_records(struct restore *r, bool warm, struct error *e)
{
	error_phase(e, "check");
	for (size_t i = 0; i < r->snapshot.n; i++) {
		const struct snapshot_record *rec = &r->snapshot.r[i];
		const struct state_kind *k = state_kind_find(rec->type);

		if (!k || !k->check || (rec->warm && !warm))
			continue;
		int x = k->check(&r->rebuild, rec->pid, rec->tid, rec->message, e);

		if (x < 0)
			return x;
	}
	return 0;
}

static int sync_all(struct restore *r, struct error *e)
{
	uint64_t t0 = now_ns();

	if (!r->changed)
		return 0;
	r->changed = false;
	/* Before anything is made: what is known of files and CPU is the same in every round. */
	int x = r->skeletons.tree->n ? 0 : check_records(r, !r->looked, e);

	if (x >= 0 && !r->skeletons.tree->n)
		x = hugetlb_check_free(&r->snapshot, e);

	if (x >= 0)
		x = sync_objects(r, e);

	if (x >= 0)
		x = skeletons_sync(&r->skeletons, e);
	r->unmade = true;
	r->t_sync += now_ns() - t0;
	return x;
}

static int feed_object(struct restore *r, const struct record *rec, struct error *e)
{
	bool ghost = rec->run.space == SPACE_FILE;
	struct host_object *o = find_object(r, rec->run.id, ghost);

	if (!o && ghost) {
		int fd = memfd_create("ferry-ghost", MFD_CLOEXEC);

		if (fd < 0)
			return error_set(e, errno, "make a file for the content of a deleted one");
		add_object(r, (struct host_object){.id = rec->run.id, .fd = fd, .ghost = true});
		o = &r->objects[r->n_objects - 1];
	}
	if (!o)
		return error_say(e, EINVAL, "page run of an unknown shared memory object %llu",
				 (unsigned long long)rec->run.id);
	int x = o->origin == OBJECT_SAME
			? 0
			: object_write(o->fd, o->huge, rec->data, rec->run.length, rec->run.addr);

	return x < 0 ? error_set(e, -x, "write shared memory object %llu at 0x%llx",
				 (unsigned long long)rec->run.id, (unsigned long long)rec->run.addr)
		     : 0;
}

static bool tree_has(const Ferry__Tree *tree, pid_t pid)
{
	for (size_t i = 0; i < tree->n_processes; i++)
		if (tree->processes[i]->pid == pid)
			return true;
	return false;
}

/* What it has elsewhere already. */
static int copy_pages(struct process *p, const struct record *rec, struct error *e)
{
	const struct skeleton *k = p->data;
	const struct page_run *run = &rec->run;
	cleanup_free void *data = xmalloc(run->length);

	if (!k->mm) /* ended since */
		return 0;
	ssize_t n = pread(k->mem_fd, data, run->length, (off_t)run->from);

	if (n != (ssize_t)run->length)
		return error_set(e, n < 0 ? errno : EIO, "pid %d: read %llu bytes at 0x%llx", p->pid,
				 (unsigned long long)run->length, (unsigned long long)run->from);
	if (!record_is_copy(rec, data))
		return error_say(e, EBADMSG,
				 "pid %d: the pages at 0x%llx are not those that were to be copied to 0x%llx",
				 p->pid, (unsigned long long)run->from, (unsigned long long)run->addr);
	return skeleton_write(p, run, data, e);
}

static int feed_pages(struct restore *r, const struct record *rec, struct error *e)
{
	int x = allowance_take(r, rec->run.flags & PAGE_RUN_ZERO ? 0 : rec->run.length, e);

	if (x >= 0)
		x = sync_all(r, e);
	if (x < 0)
		return x;
	if (rec->run.space != SPACE_PROCESS)
		return feed_object(r, rec, e);
	const Ferry__Tree *tree =
		(const Ferry__Tree *)snapshot_find(&r->snapshot, FERRY__RECORD_TYPE__RECORD_TREE, 0, 0);
	struct process *p = tree_find(r->skeletons.tree, rec->run.id);

	/* A round may carry the last pages of a process that ended in it. */
	if (!p && !tree_has(tree, rec->run.id))
		return 0;
	if (rec->run.flags & PAGE_RUN_SAME)
		return skeletons_take(&r->skeletons, &rec->run, e);
	x = p ? skeletons_end_taking(&r->skeletons, e) : skeletons_make(&r->skeletons, rec->run.id, e);
	if (!p)
		p = tree_find(r->skeletons.tree, rec->run.id);
	if (x < 0 || !p->data)
		return x;
	return rec->run.flags & PAGE_RUN_COPY ? copy_pages(p, rec, e)
					      : skeleton_write(p, &rec->run, rec->data, e);
}

/* Of an image whose pages are not all in it. */
static int feed_left(struct restore *r, const struct record *rec, struct error *e)
{
	ProtobufCMessage *m;
	int x = r->opt.lazy
			? record_unpack(rec, &ferry__left__descriptor, &m, e)
			: error_say(
				  e, EINVAL,
				  "pages of process %d are not in this image, but with the stopped original: "
				  "restore it with --lazy-pages, and \"ferry lazy-pages --page-server\" to "
				  "fetch "
				  "them",
				  rec->pid);

	if (x < 0)
		return x;
	const Ferry__Left *left = (const Ferry__Left *)m;

	x = restore_expect_missing(r, rec->pid, left->ranges, left->n_ranges, e);
	protobuf_c_message_free_unpacked(m, NULL);
	return x;
}

int restore_feed(struct restore *r, const struct record *rec, struct error *e)
{
	const ProtobufCMessageDescriptor *d = NULL;
	ProtobufCMessage *m;

	if (rec->is_pages)
		return feed_pages(r, rec, e);
	if (rec->type == FERRY__RECORD_TYPE__RECORD_LEFT)
		return feed_left(r, rec, e);
	if (rec->type == FERRY__RECORD_TYPE__RECORD_INVENTORY) {
		d = &ferry__inventory__descriptor;
	} else if (rec->type == FERRY__RECORD_TYPE__RECORD_TREE) {
		d = &ferry__tree__descriptor;
	} else {
		const struct state_kind *k = state_kind_find(rec->type);

		if (k)
			d = k->descriptor;
	}
	if (!d)
		return error_say(e, EPROTONOSUPPORT,
				 "the image has a record of type %u, which this ferry does not know",
				 rec->type);
	int x = record_unpack(rec, d, &m, e);

	if (x < 0)
		return x;
	if (rec->type == FERRY__RECORD_TYPE__RECORD_INVENTORY) {
		x = check_inventory((const Ferry__Inventory *)m, e);
		if (x >= 0)
			x = allowance_inventory(r, (const Ferry__Inventory *)m, e);
	} else if (rec->type == FERRY__RECORD_TYPE__RECORD_TREE) {
		x = allowance_tree(r, (const Ferry__Tree *)m, e);
	}
	if (x < 0) {
		protobuf_c_message_free_unpacked(m, NULL);
		return x;
	}
	if (rec->type == FERRY__RECORD_TYPE__RECORD_TREE || rec->type == FERRY__RECORD_TYPE__RECORD_MM ||
	    rec->type == FERRY__RECORD_TYPE__RECORD_OBJECTS)
		r->changed = true;
	r->snapshot.putting_warm = rec->flags & RECORD_WARM;
	snapshot_put(&r->snapshot, rec->type, rec->pid, rec->tid, m);
	return 0;
}

int restore_check(struct restore *r, struct error *e)
{
	return check_records(r, true, e);
}

int restore_look(struct restore *r, struct error *e)
{
	int x = check_records(r, true, e);

	if (x < 0)
		snapshot_drop_warm(&r->snapshot);
	r->looked = x >= 0;
	return x;
}

uint64_t *restore_made_objects(const struct restore *r, size_t *ret_n)
{
	uint64_t *ids = xcalloc(r->n_objects + 1, sizeof(*ids));

	*ret_n = 0;
	for (size_t i = 0; i < r->n_objects; i++)
		if (r->objects[i].origin == OBJECT_MADE && !r->objects[i].ghost)
			ids[(*ret_n)++] = r->objects[i].id;
	return ids;
}

static int check_pids(struct restore *r, struct error *e)
{
	const Ferry__Tree *tree =
		(const Ferry__Tree *)snapshot_find(&r->snapshot, FERRY__RECORD_TYPE__RECORD_TREE, 0, 0);

	if (!tree || !tree->n_processes)
		return error_say(e, EPROTO, "no process was told of");
	for (size_t i = 0; i < tree->n_processes; i++) {
		const Ferry__TreeProcess *p = tree->processes[i];

		/* kill(2) finds threads, too. */
		if (kill(p->pid, 0) == 0 || errno != ESRCH)
			return error_say(e, EEXIST, "pid %d (%s) is taken here", p->pid, p->comm);
		for (size_t j = 0; j < p->n_tids; j++)
			if (kill(p->tids[j], 0) == 0 || errno != ESRCH)
				return error_say(e, EEXIST, "thread id %d of process %d (%s) is taken here",
						 p->tids[j], p->pid, p->comm);
	}
	return 0;
}

int restore_check_places(struct restore *r, struct error *e)
{
	int x = hugetlb_check_free(&r->snapshot, e);

	return x < 0 ? x : check_pids(r, e);
}

int restore_sync(struct restore *r, struct error *e)
{
	int x = sync_all(r, e);

	if (x >= 0)
		x = skeletons_end_taking(&r->skeletons, e);
	if (x >= 0 && r->unmade)
		x = skeletons_make(&r->skeletons, 0, e);
	if (x >= 0)
		r->unmade = false;
	for (size_t i = 0; i < r->skeletons.tree->n && x >= 0; i++)
		if (r->skeletons.tree->procs[i]->data)
			x = skeleton_flush_drops(r->skeletons.tree->procs[i], e);
	return x;
}

/* --- the whole of it ------------------------------------------------------------------------------- */

static void discard_objects(struct restore *r)
{
	const Ferry__Objects *os =
		(const Ferry__Objects *)snapshot_find(&r->snapshot, FERRY__RECORD_TYPE__RECORD_OBJECTS, 0, 0);

	for (size_t i = 0; os && i < os->n_objects; i++) {
		const struct host_object *h = find_object(r, os->objects[i]->id, false);

		if (h && h->origin == OBJECT_MADE)
			object_discard(os->objects[i], h->fd);
	}
}

void restore_free(struct restore *r)
{
	if (!r)
		return;
	if (!r->started) {
		skeletons_kill(&r->skeletons);
		discard_objects(r);
	}
	files_rebuild_free(&r->rebuild, r->started);
	ipc_rebuild_free(&r->rebuild, r->started);
	cgroups_rebuild_free(&r->rebuild, r->started);
	lazy_free(r);
	for (size_t i = 0; i < r->skeletons.tree->n; i++)
		skeleton_data_free(r->skeletons.tree->procs[i]);
	tree_free(r->skeletons.tree);
	for (size_t i = 0; i < r->n_objects; i++)
		close(r->objects[i].fd);
	free(r->objects);
	snapshot_deinit(&r->snapshot);
	free(r);
}

/* The state is known, pages are to come: the order of both is that of the making. */
static int share_pages(void *ctx, struct stream_in *in, struct error *e)
{
	struct restore *r = ctx;

	/* What comes page by page is not shared. */
	if (r->opt.lazy)
		return lazy_choose(r, in, e);
	Ferry__Tree *tree = (Ferry__Tree *)snapshot_find(&r->snapshot, FERRY__RECORD_TYPE__RECORD_TREE, 0, 0);

	if (!tree || !tree->n_processes)
		return 0; /* refused later */
	size_t n = tree->n_processes;
	cleanup_free const Ferry__Mm **mm = xcalloc(n, sizeof(*mm));

	for (size_t i = 0; i < n; i++)
		if (tree->processes[i]->state != FERRY__PROCESS_RUN_STATE__RUN_ZOMBIE)
			mm[i] = (const Ferry__Mm *)snapshot_find(&r->snapshot, FERRY__RECORD_TYPE__RECORD_MM,
								 tree->processes[i]->pid, 0);
	struct stream_kin *kin = kin_plan(tree, mm);
	int x = stream_in_share(in, kin, n, e);

	kin_free(kin, n);
	return x;
}

int restore_from_dir(int dirfd, const struct restore_options *o, const struct events *ev, pid_t *ret_pid,
		     struct error *e)
{
	struct restore *r = NULL;
	struct stream_in *in = NULL;
	struct record rec;
	uint64_t bytes = 0, t0 = now_ns();

	error_phase(e, "read image");
	int x = stream_in_chain(&in, dirfd, e);

	if (x >= 0)
		x = restore_new(&r, o, ev, e);
	if (x >= 0)
		stream_in_before_pages(in, share_pages, r);
	while (x >= 0 && (x = stream_get(in, &rec, e)) > 0) {
		bytes += rec.is_pages && rec.data ? rec.run.length : 0;
		x = restore_feed(r, &rec, e);
		if (x >= 0)
			x = job_check_abort(e);
	}
	if (x >= 0)
		x = restore_prepare(r, e);
	if (x >= 0)
		x = hooks_run(o->hooks, "post-restore", r->skeletons.tree->procs[0]->pid, e);
	if (x >= 0)
		x = hooks_run(o->hooks, "pre-resume", r->skeletons.tree->procs[0]->pid, e);
	error_phase(e, "hand over what is missing");
	if (x >= 0 && o->lazy)
		x = lazy_hand_over(r, e);
	error_phase(e, "start");
	if (x >= 0)
		x = restore_start(r, ret_pid, e);
	if (x >= 0 && o->lazy)
		o->lazy->started(o->lazy->ctx);
	if (x >= 0) {
		struct error ignore = ERROR_INIT;

		hooks_run(o->hooks, "post-resume", *ret_pid, &ignore);
		events_emit(ev, json_pack("{s:s,s:i,s:i,s:I,s:f}", "event", "restored", "pid", *ret_pid,
					  "processes", (int)r->skeletons.tree->n, "bytes", (json_int_t)bytes,
					  "total_ms", (now_ns() - t0) / 1e6));
	}
	restore_free(r);
	stream_in_free(in);
	return x < 0 ? x : 0;
}
