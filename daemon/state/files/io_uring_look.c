/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the kernel knows of an io_uring and fdinfo does not tell: its flags, whether requests are under way,
 * what is registered with it.  Read from the kernel's structs (procfs/peek.h), by the names that its members
 * have; a kernel in which one of them has another name is an error, but for those that only newer or older
 * ones have.
 *
 * Tables of what is registered have been of two kinds: arrays of pointers to nodes, each with its tag
 * (from 6.13 on), and before that arrays of the things themselves, with the tags in pages beside them.
 *
 * Requests under way are counted per task (io_uring_task.inflight), of all its rings together, less those
 * that the kernel has set aside for the next submissions (cached_refs).
 */
#include <errno.h>
#include <string.h>

#include "base/util.h"
#include "procfs/peek.h"
#include "state/files/files.h"
#include "state/files/io_uring.h"

#define MAX_TASKS 100000  /* that have used one ring */
#define FILE_MASK (~7ull) /* of a slot: the low bits are marks */

enum field {
	FLAGS,
	TASKS,
	ISSUER,
	EVENTFD,
	RESTRICTIONS,
	PERSONALITIES,
	BUFFER_GROUPS,
	FIRST_GROUPS,
	FILES_N,
	FILES_NODES,
	BUFFERS_N,
	BUFFERS_NODES,
	OLD_FILES_N,
	OLD_FILES,
	OLD_FILES_DATA,
	OLD_BUFFERS_N,
	OLD_BUFFERS_DATA,
	OLD_TAGS,
	NODE_LIST,
	NODE_TASK,
	TASK_RINGS,
	INFLIGHT,
	INFLIGHT_CPUS,
	CACHED,
	INDEXES,
	EVENTFD_CONTEXT,
	EVENTFD_ASYNC,
	SLOT_FILE,
	SLOT_TAG,
	SLOT_BUFFER,
	KERNEL_BUFFER,
	REGION,
	ZCRX,
	CLOCK,
	NAPI,
	FIELDS,
};

enum needed {
	ALWAYS,
	SOME,  /* only some kernels have it */
	NODES, /* by the kind of the tables */
	ARRAYS,
};

static const struct {
	const char *type, *path;
	enum needed needed;
} names[FIELDS] = {
	[FLAGS] = {"io_ring_ctx", "flags", ALWAYS},
	[TASKS] = {"io_ring_ctx", "tctx_list.next", ALWAYS},
	[ISSUER] = {"io_ring_ctx", "submitter_task", ALWAYS},
	[EVENTFD] = {"io_ring_ctx", "io_ev_fd", ALWAYS},
	[RESTRICTIONS] = {"io_ring_ctx", "restrictions.registered", ALWAYS},
	[PERSONALITIES] = {"io_ring_ctx", "personalities.xa_head", ALWAYS},
	[BUFFER_GROUPS] = {"io_ring_ctx", "io_bl_xa.xa_head", ALWAYS},
	[FIRST_GROUPS] = {"io_ring_ctx", "io_bl", SOME},
	[FILES_N] = {"io_ring_ctx", "file_table.data.nr", NODES},
	[FILES_NODES] = {"io_ring_ctx", "file_table.data.nodes", NODES},
	[BUFFERS_N] = {"io_ring_ctx", "buf_table.nr", NODES},
	[BUFFERS_NODES] = {"io_ring_ctx", "buf_table.nodes", NODES},
	[OLD_FILES_N] = {"io_ring_ctx", "nr_user_files", ARRAYS},
	[OLD_FILES] = {"io_ring_ctx", "file_table.files", ARRAYS},
	[OLD_FILES_DATA] = {"io_ring_ctx", "file_data", ARRAYS},
	[OLD_BUFFERS_N] = {"io_ring_ctx", "nr_user_bufs", ARRAYS},
	[OLD_BUFFERS_DATA] = {"io_ring_ctx", "buf_data", ARRAYS},
	[OLD_TAGS] = {"io_rsrc_data", "tags", ARRAYS},
	[NODE_LIST] = {"io_tctx_node", "ctx_node.next", ALWAYS},
	[NODE_TASK] = {"io_tctx_node", "task", ALWAYS},
	[TASK_RINGS] = {"task_struct", "io_uring", ALWAYS},
	[INFLIGHT] = {"io_uring_task", "inflight.count", ALWAYS},
	[INFLIGHT_CPUS] = {"io_uring_task", "inflight.counters", ALWAYS},
	[CACHED] = {"io_uring_task", "cached_refs", ALWAYS},
	[INDEXES] = {"io_uring_task", "registered_rings", ALWAYS},
	[EVENTFD_CONTEXT] = {"io_ev_fd", "cq_ev_fd", ALWAYS},
	[EVENTFD_ASYNC] = {"io_ev_fd", "eventfd_async", ALWAYS},
	[SLOT_FILE] = {"io_rsrc_node", "file_ptr", NODES},
	[SLOT_TAG] = {"io_rsrc_node", "tag", NODES},
	[SLOT_BUFFER] = {"io_rsrc_node", "buf", NODES},
	[KERNEL_BUFFER] = {"io_mapped_ubuf", "is_kbuf", SOME},
	[REGION] = {"io_ring_ctx", "param_region.pages", SOME},
	[ZCRX] = {"io_ring_ctx", "zcrx_ctxs.xa_head", SOME},
	[CLOCK] = {"io_ring_ctx", "clockid", SOME},
	[NAPI] = {"io_ring_ctx", "napi_enabled", SOME},
};

static struct btf_field fields[FIELDS];
static bool has[FIELDS];

/* Found once. */
static const struct peek *prepare(struct error *e)
{
	static bool ready;
	const struct peek *p = peek_get(e);

	if (!p) {
		error_prefix(e, "the kernel does not tell how an io_uring was made but to who can read its "
				"memory");
		return NULL;
	}
	for (size_t i = 0; i < FIELDS && !ready; i++)
		has[i] = btf_find(peek_types(p), names[i].type, names[i].path, &fields[i]) >= 0;
	for (size_t i = 0; i < FIELDS && !ready; i++) {
		enum needed other = has[OLD_FILES_N] ? NODES : ARRAYS;

		if (!has[i] && names[i].needed != SOME && names[i].needed != other) {
			error_say(e, ENOTSUP, "an io_uring of this kernel is not understood: it has no %s.%s",
				  names[i].type, names[i].path);
			return NULL;
		}
	}
	ready = true;
	return p;
}

static int get(const struct peek *p, uint64_t at, enum field f, uint64_t *ret, struct error *e)
{
	*ret = 0;
	return has[f] ? peek_field(p, at, &fields[f], ret, e) : 0;
}

static int count_requests(const struct peek *p, uint64_t rings, int64_t *sum, struct error *e)
{
	static const struct btf_field one = {.size = 4};
	uint64_t count = 0, counters = 0, cached = 0;
	int64_t cpus = 0;
	int r = get(p, rings, INFLIGHT, &count, e);

	if (r >= 0)
		r = get(p, rings, INFLIGHT_CPUS, &counters, e);
	if (r >= 0)
		r = peek_sum(p, counters, &one, &cpus, e);
	if (r >= 0)
		r = get(p, rings, CACHED, &cached, e);
	*sum += (int64_t)count + cpus - (int32_t)cached;
	return r;
}

static int find_indexes(const struct peek *p, uint64_t file, uint64_t task, uint64_t rings,
			struct ring_look *l, struct error *e)
{
	for (unsigned i = 0; i < RING_FD_SLOTS; i++) {
		uint64_t registered = 0;
		int r = peek_read(p, rings + fields[INDEXES].offset + 8 * i, 8, &registered, e);

		if (r < 0)
			return r;
		if (registered != file)
			continue;
		l->indexes = xrealloc(l->indexes, (l->n_indexes + 1) * sizeof(*l->indexes));
		l->indexes[l->n_indexes].index = i;
		r = peek_task_id(p, task, &l->indexes[l->n_indexes].tid, e);
		if (r < 0)
			return r;
		l->n_indexes++;
	}
	return 0;
}

/* Threads that have used it. */
static int look_at_tasks(const struct peek *p, uint64_t file, uint64_t ctx, struct ring_look *l,
			 struct error *e)
{
	uint64_t head = ctx + fields[TASKS].offset, at = 0;
	int r = get(p, ctx, TASKS, &at, e), n = 0;

	while (r >= 0 && at != head) {
		uint64_t node = at - fields[NODE_LIST].offset, task = 0, rings = 0;

		if (n++ > MAX_TASKS)
			return error_say(e, EIO, "the list of tasks that use an io_uring has no end");
		r = get(p, node, NODE_TASK, &task, e);
		if (r >= 0)
			r = get(p, task, TASK_RINGS, &rings, e);
		if (r >= 0 && rings)
			r = count_requests(p, rings, &l->in_flight, e);
		if (r >= 0 && rings)
			r = find_indexes(p, file, task, rings, l, e);
		if (r >= 0)
			r = get(p, node, NODE_LIST, &at, e);
	}
	return r;
}

static int look_at_registered(const struct peek *p, uint64_t ctx, struct ring_look *l, struct error *e)
{
	static const struct {
		enum field field;
		const char *what;
	} extras[] = {
		{RESTRICTIONS, "restrictions"},
		{PERSONALITIES, "credentials"},
		{BUFFER_GROUPS, "groups of provided buffers"},
		{FIRST_GROUPS, "groups of provided buffers"},
		{REGION, "a memory region"},
		{ZCRX, "queues for zero-copy receive"},
		{NAPI, "network devices to be polled"},
	};
	uint64_t v = 0, event = 0;
	int r = 0;

	for (size_t i = 0; i < ARRAY_SIZE(extras) && r >= 0; i++) {
		r = get(p, ctx, extras[i].field, &v, e);
		if (v)
			l->extra = extras[i].what;
	}
	if (r >= 0 && has[CLOCK]) {
		r = get(p, ctx, CLOCK, &v, e);
		if (v != 1) /* CLOCK_MONOTONIC */
			l->extra = "another clock";
	}
	if (r >= 0)
		r = get(p, ctx, EVENTFD, &event, e);
	if (r >= 0 && event) {
		r = get(p, event, EVENTFD_CONTEXT, &l->eventfd, e);
		if (r >= 0)
			r = get(p, event, EVENTFD_ASYNC, &v, e);
		l->eventfd_async = v;
	}
	return r;
}

void ring_look_deinit(struct ring_look *l)
{
	free(l->indexes);
	*l = (struct ring_look){0};
}

int ring_look(int copy, struct ring_look *ret, struct error *e)
{
	const struct peek *p = prepare(e);
	uint64_t file = 0, ctx = 0, flags = 0;

	*ret = (struct ring_look){0};
	if (!p)
		return -e->code;
	int r = peek_file(p, copy, &file, e);

	if (r >= 0)
		r = peek_private(p, copy, &ctx, e);
	if (r >= 0)
		r = get(p, ctx, FLAGS, &flags, e);
	ret->flags = (uint32_t)flags;
	if (r >= 0)
		r = get(p, ctx, ISSUER, &ret->issuer, e);
	if (r >= 0)
		r = look_at_registered(p, ctx, ret, e);
	if (r >= 0)
		r = look_at_tasks(p, file, ctx, ret, e);
	if (r < 0)
		ring_look_deinit(ret);
	return r;
}

int ring_issuer(const struct ring_look *l, pid_t *ret, struct error *e)
{
	const struct peek *p = prepare(e);

	*ret = 0;
	return !p ? -e->code : l->issuer ? peek_task_id(p, l->issuer, ret, e) : 0;
}

/* Returns 1 if one of @n things has a tag. */
static int look_at_old_tags(const struct peek *p, uint64_t data, uint64_t n, struct error *e)
{
	const uint64_t in_page = PAGE_SIZE_BYTES / 8;
	uint64_t pages = 0, page = 0, tag = 0, any = 0;
	int r = get(p, data, OLD_TAGS, &pages, e);

	for (uint64_t i = 0; i < n && r >= 0; i++) {
		if (i % in_page == 0)
			r = peek_read(p, pages + 8 * (i / in_page), 8, &page, e);
		if (r >= 0)
			r = peek_read(p, page + 8 * (i % in_page), 8, &tag, e);
		any |= tag;
	}
	return r < 0 ? r : any != 0;
}

/* Of buffers fdinfo shows all but the tags. */
static int look_at_old_table(const struct peek *p, uint64_t ctx, bool buffers, uint64_t **ret, size_t *ret_n,
			     struct error *e)
{
	uint64_t n = 0, files = 0, data = 0;
	int r = get(p, ctx, buffers ? OLD_BUFFERS_N : OLD_FILES_N, &n, e);

	if (r >= 0)
		r = get(p, ctx, OLD_FILES, &files, e);
	if (r >= 0)
		r = get(p, ctx, buffers ? OLD_BUFFERS_DATA : OLD_FILES_DATA, &data, e);
	if (r < 0)
		return r;
	*ret_n = n;
	*ret = xcalloc(n + 1, sizeof(**ret));
	for (uint64_t i = 0; i < n && !buffers && r >= 0; i++)
		r = peek_read(p, files + 8 * i, 8, &(*ret)[i], e);
	return r < 0 ? r : n ? look_at_old_tags(p, data, n, e) : 0;
}

static int look_at_slot(const struct peek *p, uint64_t slot, bool buffer, uint64_t *ret, struct error *e)
{
	uint64_t tag = 0, kernels = 0;
	int r = get(p, slot, buffer ? SLOT_BUFFER : SLOT_FILE, ret, e);

	if (r >= 0)
		r = get(p, slot, SLOT_TAG, &tag, e);
	if (r >= 0 && buffer && *ret)
		r = get(p, *ret, KERNEL_BUFFER, &kernels, e);
	return r < 0 ? r : tag || kernels;
}

/* Slots of the table of files or buffers. Returns 1 if one of them is more than the thing itself. */
static int look_at_table(int copy, bool buffers, uint64_t **ret, size_t *ret_n, struct error *e)
{
	const struct peek *p = prepare(e);
	uint64_t ctx = 0, n = 0, nodes = 0;
	bool odd = false;

	*ret = NULL;
	*ret_n = 0;
	if (!p)
		return -e->code;
	int r = peek_private(p, copy, &ctx, e);

	if (r >= 0 && has[OLD_FILES_N])
		return look_at_old_table(p, ctx, buffers, ret, ret_n, e);
	if (r >= 0)
		r = get(p, ctx, buffers ? BUFFERS_N : FILES_N, &n, e);
	if (r >= 0)
		r = get(p, ctx, buffers ? BUFFERS_NODES : FILES_NODES, &nodes, e);
	*ret_n = n;
	*ret = xcalloc(n + 1, sizeof(**ret));
	for (uint64_t i = 0; i < n && r >= 0; i++) {
		uint64_t slot = 0;

		r = peek_read(p, nodes + 8 * i, 8, &slot, e);
		if (r >= 0 && slot)
			r = look_at_slot(p, slot, buffers, &(*ret)[i], e);
		odd |= r > 0;
	}
	return r < 0 ? r : odd;
}

int ring_files(int copy, uint64_t **ret, size_t *ret_n, struct error *e)
{
	int r = look_at_table(copy, false, ret, ret_n, e);

	for (size_t i = 0; i < *ret_n; i++)
		(*ret)[i] &= FILE_MASK;
	return r;
}

int ring_buffers_plain(int copy, bool *ret, struct error *e)
{
	cleanup_free uint64_t *slots = NULL;
	size_t n = 0;
	int r = look_at_table(copy, true, &slots, &n, e);

	*ret = r == 0;
	return r < 0 ? r : 0;
}
