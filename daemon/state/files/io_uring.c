/* SPDX-License-Identifier: Apache-2.0 */
/*
 * io_uring: an idle one is made again, with the same rings at the same place.  How the new one comes to its
 * old counters is told in io_uring_ring.c; what the kernel does not show of the old one in io_uring_look.c;
 * how it becomes idle in io_uring_idle.c.
 *
 * Its mappings are none of the layout's (Vma.kind VMA_RING): a placeholder lies there until the descriptor
 * is at its number.
 */
#include <errno.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/util.h"
#include "procfs/peek.h"
#include "procfs/procfs.h"
#include "state/files/files.h"
#include "state/files/io_uring.h"
#include "state/memory/memory.h"

#define MAX_COUNT     (1u << 26) /* requests since it was made: some ten seconds of making it again */
#define INFO_TRIES    20000
#define INFO_PAUSE_NS 50000

static bool io_uring_match(const struct fd_facts *f)
{
	return ring_is(f->link);
}

static int refuse(const struct fd_facts *f, const char *why, struct error *e)
{
	return error_say(e, ENOTSUP, "pid %d fd %d: an io_uring %s is not supported", f->pid, f->fd, why);
}

static int check_flags(const struct fd_facts *f, const struct ring_look *l, struct error *e)
{
	static const struct {
		uint32_t flag;
		const char *why;
	} refused[] = {
		{IORING_SETUP_SQPOLL, "with a kernel thread that takes its requests (IORING_SETUP_SQPOLL)"},
		{IORING_SETUP_IOPOLL, "that polls devices (IORING_SETUP_IOPOLL)"},
		{RING_NO_MMAP, "in memory of the program (IORING_SETUP_NO_MMAP)"},
		{IORING_SETUP_R_DISABLED, "that is not enabled yet (IORING_SETUP_R_DISABLED)"},
	};
	char text[64];

	for (size_t i = 0; i < ARRAY_SIZE(refused); i++)
		if (l->flags & refused[i].flag)
			return refuse(f, refused[i].why, e);
	if (l->flags & ~RING_KNOWN_FLAGS) {
		snprintf(text, sizeof(text), "with flags 0x%x", l->flags & ~(uint32_t)RING_KNOWN_FLAGS);
		return refuse(f, text, e);
	}
	if (l->extra) {
		cleanup_free char *what = xasprintf("with which %s are registered", l->extra);

		return refuse(f, what, e);
	}
	return 0;
}

/* --- who has it ----------------------------------------------------------------------------------------- */

struct outside {
	uint64_t ino;
	pid_t pid;
};

static void note_outside(void *ctx, pid_t pid, int fd)
{
	struct outside *o = ctx;
	cleanup_free char *path = xasprintf("/proc/%d/fd/%d", pid, fd);
	struct stat st;

	if (stat(path, &st) == 0 && st.st_ino == o->ino)
		o->pid = pid;
}

static int io_uring_preflight(struct capture *c, struct fd_facts *f, struct error *e)
{
	struct outside o = {f->st.st_ino, 0};

	files_each_outside(c, ring_is, note_outside, &o);
	return o.pid ? error_say(
			       e, ENOTSUP,
			       "pid %d fd %d: its io_uring is also held by pid %d, which is not in the tree",
			       f->pid, f->fd, o.pid)
		     : 0;
}

static const struct fd_slot *find_number(const struct files_capture *f, const struct fd_table *t,
					 uint64_t ino)
{
	for (size_t i = 0; i < t->n; i++) {
		const struct ofd *o = &f->ofds[t->fds[i].ofd];

		if (o->link && ring_is(o->link) && o->st.st_ino == ino)
			return &t->fds[i];
	}
	return NULL;
}

/* The only process that has it, or 0. */
static pid_t only_holder(struct capture *c, uint64_t ino)
{
	const struct files_capture *f = files_capture_of(c);
	pid_t pid = 0;

	for (size_t i = 0; i < f->n_tables; i++)
		if (!f->tables[i].shared_with && find_number(f, &f->tables[i], ino)) {
			if (pid)
				return 0;
			pid = f->tables[i].pid;
		}
	return pid;
}

static int take_threads(struct capture *c, const struct fd_facts *f, const struct ring_look *l,
			Ferry__IoUring *u, struct error *e)
{
	pid_t issuer = 0;
	int r = ring_issuer(l, &issuer, e);

	if (r < 0)
		return error_prefix(e, "pid %d fd %d: the thread that its io_uring belongs to", f->pid,
				    f->fd);
	u->issuer = issuer;
	if (issuer && !tree_find(c->tree, issuer))
		return refuse(f,
			      "that belongs to another thread than a main one "
			      "(IORING_SETUP_SINGLE_ISSUER)",
			      e);
	u->indexes = xcalloc(l->n_indexes + 1, sizeof(*u->indexes));
	for (size_t i = 0; i < l->n_indexes; i++) {
		if (!tree_find(c->tree, l->indexes[i].tid))
			return refuse(f,
				      "whose descriptor is registered by another thread than a main one "
				      "(IORING_REGISTER_RING_FDS)",
				      e);
		u->indexes[i] = xmalloc(sizeof(**u->indexes));
		ferry__io_uring_index__init(u->indexes[i]);
		u->indexes[i]->tid = l->indexes[i].tid;
		u->indexes[i]->index = l->indexes[i].index;
		u->n_indexes++;
	}
	return 0;
}

/* --- what is registered --------------------------------------------------------------------------------- */

/* The description with this `struct file`, or this thing behind it. */
static int find_file(struct capture *c, uint64_t wanted, bool private, const char *link, uint64_t *ret,
		     struct error *e)
{
	struct files_capture *f = files_capture_of(c);
	const struct peek *p = peek_get(e);
	uint32_t n = f->n;

	*ret = 0;
	if (!p)
		return -e->code;
	for (uint32_t i = 0; i < n && !*ret; i++) {
		const struct ofd *o = &f->ofds[i];
		struct error gone = ERROR_INIT;
		uint64_t file = 0;

		if (!o->link || !strcmp(o->link, "gone:") || (link && strcmp(o->link, link) != 0))
			continue;
		cleanup_close int copy = files_copy_of(c, o, &gone);

		if (copy < 0)
			continue;
		int r = private ? peek_private(p, copy, &file, e) : peek_file(p, copy, &file, e);

		if (r < 0)
			return r;
		if (file == wanted)
			*ret = i + 1;
	}
	return 0;
}

/* "    3: NAME" among the lines after "UserFiles:"; owned by the caller. */
static char *name_of_slot(const char *info, size_t slot)
{
	const char *at = strstr(info, "UserFiles:");
	cleanup_free char *key = xasprintf("\n%5zu: ", slot);

	at = at ? strstr(at, key) : NULL;
	if (!at)
		return xstrdup("?");
	at += strlen(key);
	return xasprintf("%.*s", (int)strcspn(at, "\n"), at);
}

static int take_files(struct capture *c, struct fd_facts *f, const char *info, Ferry__IoUring *u,
		      struct error *e)
{
	cleanup_free uint64_t *slots = NULL;
	size_t n = 0;
	int r = ring_files(f->copy, &slots, &n, e);

	if (r > 0)
		return refuse(f, "with which files are registered that have tags", e);
	u->file_slots = (uint32_t)n;
	u->files = xcalloc(n + 1, sizeof(*u->files));
	for (size_t i = 0; i < n && r >= 0; i++) {
		uint64_t id = 0;

		if (!slots[i])
			continue;
		cleanup_free char *name = name_of_slot(info, i);

		/* The name in fdinfo is that of the link, but for what has a number in it, or blanks. */
		r = find_file(c, slots[i], false, name, &id, e);
		if (r >= 0 && !id)
			r = find_file(c, slots[i], false, NULL, &id, e);
		if (r < 0)
			return error_prefix(e, "pid %d fd %d", f->pid, f->fd);
		if (!id)
			return error_say(
				e, ENOTSUP,
				"pid %d fd %d: file %zu that is registered with its io_uring (%s) is "
				"not open otherwise",
				f->pid, f->fd, i, name);
		Ferry__IoUringFile *file = u->files[u->n_files++] = xmalloc(sizeof(*file));

		ferry__io_uring_file__init(file);
		file->slot = (uint32_t)i;
		file->file = id;
	}
	return r;
}

/* Lines "    0: 0x7f12340000/4096" after "UserBufs:\t2". */
static int take_buffers(struct capture *c, struct fd_facts *f, const char *info, Ferry__IoUring *u,
			struct error *e)
{
	uint64_t n = 0;
	bool plain = false;
	size_t cap = 0;
	const char *at = strstr(info, "UserBufs:");

	if (!proc_field_u64(info, "UserBufs", 10, &n) || !n)
		return 0;
	int r = ring_buffers_plain(f->copy, &plain, e);

	if (r < 0)
		return error_prefix(e, "pid %d fd %d", f->pid, f->fd);
	if (!plain)
		return refuse(f, "with which buffers are registered that have tags or are the kernel's", e);
	u->buffer_slots = (uint32_t)n;
	u->buffers_pid = only_holder(c, f->st.st_ino);
	if (!u->buffers_pid)
		return refuse(f, "with registered buffers that several processes have", e);
	struct memory *m = c->memory;

	if (m && f->frozen && m->leaves)
		return error_say(e, EAGAIN,
				 "pid %d fd %d: buffers were registered with its io_uring in the very moment "
				 "of the freeze: try again",
				 f->pid, f->fd);
	if (m)
		m->pinned = true;
	for (uint64_t i = 0; i < n && (at = strchr(at, '\n')); i++) {
		unsigned slot;
		unsigned long long addr, length;

		/* An empty slot: "<none>", or before 6.13 a buffer that cannot be. */
		if (sscanf(++at, "%u: 0x%llx/%llu", &slot, &addr, &length) != 3 || addr == ~0ull)
			continue;
		Ferry__IoUringBuffer *b = xmalloc(sizeof(*b));

		ferry__io_uring_buffer__init(b);
		b->slot = slot;
		b->addr = addr;
		b->length = length;
		FILES_GROW(u->buffers, u->n_buffers, cap);
		u->buffers[u->n_buffers++] = b;
	}
	return 0;
}

static int take_eventfd(struct capture *c, const struct fd_facts *f, const struct ring_look *l,
			Ferry__IoUring *u, struct error *e)
{
	uint64_t id = 0;

	if (!l->eventfd)
		return 0;
	int r = find_file(c, l->eventfd, true, "anon_inode:[eventfd]", &id, e);

	if (r < 0)
		return error_prefix(e, "pid %d fd %d", f->pid, f->fd);
	if (!id)
		return refuse(f, "with an eventfd that is not open otherwise", e);
	u->eventfd = id;
	u->eventfd_async = l->eventfd_async;
	return 0;
}

/* --- the rings ------------------------------------------------------------------------------------------ */

/* How this kernel lays them out it tells only to who makes one. */
static int take_kind(const struct fd_facts *f, struct io_uring_params *p, Ferry__IoUring *u, struct error *e)
{
	cleanup_close int same = ring_make(u->flags, u->sq_entries, u->cq_entries, p);

	if (same < 0)
		return error_set(e, -same, "pid %d fd %d: making an io_uring like it", f->pid, f->fd);
	if (p->sq_entries != u->sq_entries || p->cq_entries != u->cq_entries)
		return error_say(e, EIO, "pid %d fd %d: an io_uring made like it has another size", f->pid,
				 f->fd);
	u->features = p->features;
	u->n_offsets = RING_N_OFFSETS;
	u->offsets = xcalloc(RING_N_OFFSETS, sizeof(*u->offsets));
	ring_offsets(p, u->offsets);
	return 0;
}

/* Of a running program: no more than that each is one it has had by now, and head and tail fit. */
static int take_counters(const struct fd_facts *f, const char *info, Ferry__IoUring *u, struct error *e)
{
	uint64_t sq_mask, cq_mask, sq_head, cq_head, cq_tail;

	if (!proc_field_u64(info, "SqMask", 16, &sq_mask) || !proc_field_u64(info, "CqMask", 16, &cq_mask) ||
	    !proc_field_u64(info, "SqHead", 10, &sq_head) || !proc_field_u64(info, "CqHead", 10, &cq_head) ||
	    !proc_field_u64(info, "CqTail", 10, &cq_tail))
		return error_say(e, EIO, "pid %d fd %d: fdinfo does not show its io_uring", f->pid, f->fd);
	u->sq_entries = (uint32_t)sq_mask + 1;
	u->cq_entries = (uint32_t)cq_mask + 1;
	u->sq_head = u->sq_tail = (uint32_t)sq_head;
	u->cq_tail = (uint32_t)cq_tail;
	u->cq_head = (uint32_t)cq_head;
	if (u->cq_tail - u->cq_head > u->cq_entries)
		u->cq_head = u->cq_tail - u->cq_entries;
	if (MAX(u->sq_head, u->cq_tail) > MAX_COUNT)
		return error_say(e, ENOTSUP,
				 "pid %d fd %d: %u requests went through its io_uring; up to %u can be made "
				 "up for in a new one",
				 f->pid, f->fd, MAX(u->sq_head, u->cq_tail), MAX_COUNT);
	return 0;
}

static void copy_out(ProtobufCBinaryData *to, const void *from, size_t size)
{
	to->data = xmemdup(from, size);
	to->len = size;
}

static int take_rings(struct fd_facts *f, const char *info, const struct io_uring_params *p,
		      Ferry__IoUring *u, struct error *e)
{
	struct ring_map map;
	uint64_t sq_head = 0, cq_tail = 0;
	int r = ring_map(f->copy, p, &map);

	if (r < 0)
		return error_set(e, -r, "pid %d fd %d: mapping the rings of its io_uring", f->pid, f->fd);
	u->sq_head = *ring_word(&map, p->sq_off.head);
	u->sq_tail = *ring_word(&map, p->sq_off.tail);
	u->cq_head = *ring_word(&map, p->cq_off.head);
	u->cq_tail = *ring_word(&map, p->cq_off.tail);
	u->sq_dropped = *ring_word(&map, p->sq_off.dropped);
	u->cq_overflow = *ring_word(&map, p->cq_off.overflow);
	u->cq_flags = *ring_word(&map, p->cq_off.flags);
	copy_out(&u->cqes, map.rings + p->cq_off.cqes, p->cq_entries * ring_cqe_size(u->flags));
	if (!(u->flags & RING_NO_SQARRAY))
		copy_out(&u->sq_array, map.rings + p->sq_off.array, p->sq_entries * sizeof(uint32_t));
	copy_out(&u->sqes, map.sqes, map.sqes_size);
	bool overflow = *ring_word(&map, p->sq_off.flags) & IORING_SQ_CQ_OVERFLOW;

	ring_unmap(&map);
	if (overflow)
		return error_say(e, EAGAIN,
				 "pid %d fd %d: completions of its io_uring do not fit into the ring: try "
				 "again when it has read some",
				 f->pid, f->fd);
	if (u->flags & IORING_SETUP_DEFER_TASKRUN && (int32_t)(u->cq_tail - u->sq_head) > 0)
		return refuse(f, "of a single thread with more completions than requests (multishot)", e);
	/* What the kernel counts, and what the rings show. */
	if (!proc_field_u64(info, "CachedSqHead", 10, &sq_head) ||
	    !proc_field_u64(info, "CachedCqTail", 10, &cq_tail) || (uint32_t)sq_head != u->sq_head ||
	    (uint32_t)cq_tail != u->cq_tail || u->cq_tail - u->cq_head > u->cq_entries)
		return error_say(e, EIO, "pid %d fd %d: the counters of its io_uring do not fit together",
				 f->pid, f->fd);
	return 0;
}

/* While it is in use fdinfo shows nothing of it; older kernels (6.1) show how many buffers there are then,
 * and none of them. */
static bool shows_all(const char *info)
{
	const char *at = strstr(info, "UserBufs:"), *line = at ? strchr(at, '\n') : NULL;
	uint64_t n;
	unsigned slot;

	return proc_field(info, "SqMask") && (!proc_field_u64(info, "UserBufs", 10, &n) || !n ||
					      (line && sscanf(line + 1, " %u:", &slot) == 1));
}

static const char *read_info(struct fd_facts *f, struct error *e)
{
	const char *info = fd_facts_info(f, e);

	for (int i = 0; info && !shows_all(info) && i < INFO_TRIES; i++) {
		free(f->fdinfo);
		f->fdinfo = NULL;
		nanosleep(&(struct timespec){.tv_nsec = INFO_PAUSE_NS}, NULL);
		info = fd_facts_info(f, e);
	}
	return info;
}

static int take_state(struct capture *c, struct fd_facts *f, const struct ring_look *l, Ferry__IoUring *u,
		      struct error *e)
{
	const char *info = read_info(f, e), *napi = info ? proc_field(info, "NAPI") : NULL;
	struct io_uring_params p;

	if (!info)
		return -e->code;
	if (!shows_all(info))
		return error_say(e, EAGAIN,
				 "pid %d fd %d: its io_uring is in use all the time, so that fdinfo does "
				 "not show it: try again",
				 f->pid, f->fd);
	if (napi && !strncmp(napi, "enabled", 7))
		return refuse(f, "that polls network devices (IORING_REGISTER_NAPI)", e);
	if (f->frozen && l->in_flight)
		return error_say(e, EAGAIN, "pid %d fd %d: %lld requests of its io_uring are under way",
				 f->pid, f->fd, (long long)l->in_flight);
	int r = take_counters(f, info, u, e);

	if (r >= 0)
		r = take_kind(f, &p, u, e);
	if (r >= 0)
		r = take_threads(c, f, l, u, e);
	if (r >= 0)
		r = take_files(c, f, info, u, e);
	if (r >= 0)
		r = take_buffers(c, f, info, u, e);
	if (r >= 0)
		r = take_eventfd(c, f, l, u, e);
	return r >= 0 && f->frozen ? take_rings(f, info, &p, u, e) : r;
}

static int io_uring_capture(struct capture *c, struct fd_facts *f, FileDescription *m, struct error *e)
{
	struct ring_look l;
	int r = ring_look(f->copy, &l, e);

	if (r < 0)
		return error_prefix(e, "pid %d fd %d: its io_uring", f->pid, f->fd);
	m->io_uring = xmalloc(sizeof(*m->io_uring));
	ferry__io_uring__init(m->io_uring);
	m->io_uring->ino = f->st.st_ino;
	m->io_uring->flags = l.flags;
	r = check_flags(f, &l, e);
	if (r >= 0)
		r = take_state(c, f, &l, m->io_uring, e);
	ring_look_deinit(&l);
	return r;
}

/* Whose rings are mapped, but not open, has no descriptor to map them by. */
static int io_uring_settle(struct capture *c, Ferry__Files *all, struct error *e)
{
	struct files_capture *f = files_capture_of(c);

	(void)all;
	for (size_t i = 0; f->frozen && i < c->tree->n; i++) {
		const struct process *p = c->tree->procs[i];
		const struct memory_process *mp = p->data;
		struct fd_table *t;

		for (size_t k = 0; mp && mp->mm && k < mp->mm->n_vmas; k++) {
			const Ferry__Vma *v = mp->mm->vmas[k];

			if (v->kind != FERRY__VMA_KIND__VMA_RING)
				continue;
			int r = files_table_of(c, c->tree->procs[i], &t, e);

			if (r < 0)
				return r;
			if (!t->shared_with && !find_number(f, t, v->ring))
				return error_say(e, ENOTSUP,
						 "pid %d: mapping 0x%llx-0x%llx is of an io_uring that it "
						 "has no descriptor of",
						 p->pid, (unsigned long long)v->start,
						 (unsigned long long)v->end);
		}
	}
	return 0;
}

const struct fd_type fd_io_uring = {
	.name = "io_uring",
	.kind = FILE_KIND(IO_URING),
	.match = io_uring_match,
	.preflight = io_uring_preflight,
	.capture = io_uring_capture,
	.settle = io_uring_settle,
	.check = io_uring_check,
	.open = io_uring_open,
	.connect = io_uring_connect,
	.place = io_uring_place,
};
