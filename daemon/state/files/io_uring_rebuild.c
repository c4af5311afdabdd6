/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The other half of io_uring.c.  The host makes the ring and brings it to its counters: as far as they are
 * known in the first round already then, since that may take seconds.  One that belongs to a single thread
 * (IORING_SETUP_SINGLE_ISSUER) is made disabled, and enabled by that thread, which then submits what moves
 * the counters; so that comes after the freeze.
 */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#include "arch/arch.h"
#include "base/util.h"
#include "procfs/procfs.h"
#include "proto/memory.pb-c.h"
#include "state/fetch.h"
#include "state/files/files.h"
#include "state/files/io_uring.h"

#define MAX_COUNT      (1u << 27) /* more than a source accepts, as it went on after it was asked */
#define MAX_REGISTERED (1u << 20)
#define MAX_LAPS       1024 /* in one batch */

struct ring_here {
	uint64_t ino;
	int fd; /* -1: it was handed on */
	struct ring_map map;
};

static bool is_single(const Ferry__IoUring *u)
{
	return u->flags & IORING_SETUP_SINGLE_ISSUER;
}

static int check_message(const FileDescription *m, struct error *e)
{
	const Ferry__IoUring *u = m->io_uring;

	if (!u || u->n_offsets != RING_N_OFFSETS || u->flags & ~RING_KNOWN_FLAGS ||
	    u->cq_tail - u->cq_head > u->cq_entries || u->file_slots > MAX_REGISTERED ||
	    u->buffer_slots > MAX_REGISTERED)
		return error_say(e, EPROTO, "the image says nothing sensible of io_uring %llu",
				 (unsigned long long)m->id);
	return 0;
}

static int explain(const FileDescription *m, int err, const char *what, struct error *e)
{
	return error_set(e, err, "pid %d fd %d: %s its io_uring", m->pid, m->fd, what);
}

/* --- making --------------------------------------------------------------------------------------------- */

static int make_ring(const FileDescription *m, struct ring_here *ret, struct error *e)
{
	const Ferry__IoUring *u = m->io_uring;
	uint32_t offsets[RING_N_OFFSETS];
	struct io_uring_params p;
	cleanup_close int fd = ring_make(u->flags | (is_single(u) ? IORING_SETUP_R_DISABLED : 0),
					 u->sq_entries, u->cq_entries, &p);

	if (fd < 0)
		return explain(m, -fd, "making", e);
	ring_offsets(&p, offsets);
	if (memcmp(offsets, u->offsets, sizeof(offsets)) != 0 || p.sq_entries != u->sq_entries ||
	    p.cq_entries != u->cq_entries)
		return error_say(e, ENOTSUP,
				 "pid %d fd %d: this kernel lays the rings of an io_uring out in another way",
				 m->pid, m->fd);
	if (u->features & ~p.features)
		return error_say(e, ENOTSUP,
				 "pid %d fd %d: its io_uring has features 0x%x that this kernel lacks",
				 m->pid, m->fd, u->features & ~p.features);
	int r = ring_map(fd, &p, &ret->map);

	if (r < 0)
		return explain(m, -r, "mapping", e);
	ret->ino = u->ino;
	ret->fd = TAKE_FD(fd);
	return 0;
}

static struct ring_here *find_ring(struct files_rebuild *f, const Ferry__IoUring *u)
{
	for (size_t i = 0; i < f->n_rings; i++)
		if (f->rings[i].ino == u->ino)
			return &f->rings[i];
	return NULL;
}

void rings_free(struct files_rebuild *f)
{
	for (size_t i = 0; i < f->n_rings; i++) {
		ring_unmap(&f->rings[i].map);
		if (f->rings[i].fd >= 0)
			close(f->rings[i].fd);
	}
	free(f->rings);
	f->rings = NULL;
	f->n_rings = f->cap_rings = 0;
}

/* --- counters ------------------------------------------------------------------------------------------- */

static int check_distance(const FileDescription *m, const struct ring_here *h, struct error *e)
{
	uint64_t n = ring_distance(&h->map, m->io_uring);

	return n > MAX_COUNT
		       ? error_say(e, ENOTSUP,
				   "pid %d fd %d: %llu requests went through its io_uring, too many to make "
				   "up for",
				   m->pid, m->fd, (unsigned long long)n)
		       : 0;
}

static int enter_here(void *ctx, uint32_t n, struct error *e)
{
	long done = syscall(SYS_io_uring_enter, *(int *)ctx, n, 0, 0, NULL, 0);

	return done < 0 ? error_set(e, errno, "moving the counters of an io_uring") : (int)done;
}

struct inside {
	struct rebuild *r;
	struct process *p;
	int fd;      /* there */
	uint64_t at; /* its rings, mapped there */
	const struct ring_map *map;
};

static int enter_there(void *ctx, uint32_t n, struct error *e)
{
	struct inside *in = ctx;
	struct batch b = BATCH_INIT;
	unsigned i = batch_call(&b, "move the counters of an io_uring", SYS_io_uring_enter, ARG(in->fd),
				ARG(n), ARG(0), ARG(0), ARG(0), ARG(0));
	int x = in->r->run_in(in->r, in->p, &b, e);

	if (x >= 0)
		x = (int)batch_result(&b, i);
	batch_deinit(&b);
	return x;
}

/* Many at once: each way there and back is a wait for a CPU. */
static int laps_there(void *ctx, uint32_t n, struct error *e)
{
	struct inside *in = ctx;
	const struct io_uring_params *p = &in->map->p;
	int x = 0;

	while (n && x >= 0) {
		struct batch b = BATCH_INIT;

		for (unsigned i = 0; i < MAX_LAPS && n; i++, n--) {
			unsigned k =
				batch_call(&b, "move the counters of an io_uring", SYS_io_uring_enter,
					   ARG(in->fd), ARG(p->sq_entries), ARG(0), ARG(0), ARG(0), ARG(0));

			batch_accept_equal(&b, k, p->sq_entries);
			batch_op(&b, "read completions", PB_OP_COPY, ARG(in->at + p->cq_off.head),
				 ARG(in->at + p->cq_off.tail), ARG(4));
		}
		x = in->r->run_in(in->r, in->p, &b, e);
		batch_deinit(&b);
	}
	return x;
}

int io_uring_check(struct rebuild *r, const FileDescription *m, struct error *e)
{
	struct files_rebuild *f = files_rebuild_of(r);
	int ret = check_message(m, e);

	if (ret < 0 || find_ring(f, m->io_uring))
		return ret;
	struct ring_here here = {0};

	ret = make_ring(m, &here, e);
	if (ret < 0)
		return ret;
	FILES_GROW(f->rings, f->n_rings, f->cap_rings);
	f->rings[f->n_rings++] = here;
	ret = check_distance(m, &here, e);
	if (ret >= 0 && !is_single(m->io_uring))
		ret = ring_advance(&here.map, here.fd, &(struct ring_submitter){enter_here, NULL, &here.fd},
				   m->io_uring, e);
	return ret < 0 ? error_prefix(e, "pid %d fd %d", m->pid, m->fd) : 0;
}

int io_uring_open(struct rebuild *r, const FileDescription *m, int *ret_fd, struct error *e)
{
	struct files_rebuild *f = files_rebuild_of(r);
	int ret = check_message(m, e);
	struct ring_here *h = ret < 0 ? NULL : find_ring(f, m->io_uring);

	if (ret >= 0 && !h) { /* it is one that was made since the check */
		struct ring_here here = {0};

		ret = make_ring(m, &here, e);
		if (ret < 0)
			return ret;
		FILES_GROW(f->rings, f->n_rings, f->cap_rings);
		h = &f->rings[f->n_rings++];
		*h = here;
	}
	if (ret < 0)
		return ret;
	if (h->fd < 0 || h->map.p.sq_entries != m->io_uring->sq_entries ||
	    h->map.p.cq_entries != m->io_uring->cq_entries ||
	    ((h->map.p.flags ^ m->io_uring->flags) &
	     (IORING_SETUP_SQE128 | IORING_SETUP_CQE32 | RING_NO_SQARRAY)))
		return error_say(e, EPROTO, "pid %d fd %d: its io_uring is not the one that was checked",
				 m->pid, m->fd);
	*ret_fd = TAKE_FD(h->fd);
	return 0;
}

/* --- what is registered --------------------------------------------------------------------------------- */

static int register_here(int fd, unsigned op, const void *arg, unsigned n)
{
	return syscall(SYS_io_uring_register, fd, op, arg, n) < 0 ? -errno : 0;
}

static int register_files(struct rebuild *r, const FileDescription *m, int fd, struct error *e)
{
	const Ferry__IoUring *u = m->io_uring;
	cleanup_free int32_t *fds = xcalloc(u->file_slots + 1, sizeof(*fds));

	if (!u->file_slots)
		return 0;
	for (uint32_t i = 0; i < u->file_slots; i++)
		fds[i] = -1;
	for (size_t i = 0; i < u->n_files; i++) {
		int host = files_host_fd(r, u->files[i]->file);

		if (u->files[i]->slot >= u->file_slots || host < 0)
			return error_say(e, EPROTO,
					 "pid %d fd %d: the image has no file %llu for its io_uring", m->pid,
					 m->fd, (unsigned long long)u->files[i]->file);
		fds[u->files[i]->slot] = host;
	}
	int ret = register_here(fd, IORING_REGISTER_FILES, fds, u->file_slots);

	return ret < 0 ? explain(m, -ret, "registering files with", e) : 0;
}

/* They are memory of who registers them. */
static int register_buffers(struct rebuild *r, const FileDescription *m, int fd, struct error *e)
{
	const Ferry__IoUring *u = m->io_uring;
	struct process *p = tree_find(r->tree, u->buffers_pid);

	if (!u->buffer_slots)
		return 0;
	if (!p || !r->run_in)
		return error_say(e, EPROTO, "pid %d fd %d: the image has no process %d with its buffers",
				 m->pid, m->fd, u->buffers_pid);
	cleanup_free struct iovec *v = xcalloc(u->buffer_slots, sizeof(*v));

	for (size_t i = 0; i < u->n_buffers; i++)
		if (u->buffers[i]->slot < u->buffer_slots)
			v[u->buffers[i]->slot] =
				(struct iovec){(void *)(uintptr_t)u->buffers[i]->addr, u->buffers[i]->length};
	struct batch b = BATCH_INIT;
	unsigned there = rebuild_fetch_fd(&b, fd);

	batch_call(&b, "register buffers with an io_uring", SYS_io_uring_register, ARG_RESULT(there),
		   ARG(IORING_REGISTER_BUFFERS), ARG_PUT(&b, v, u->buffer_slots * sizeof(*v)),
		   ARG(u->buffer_slots));
	batch_call(&b, "close an io_uring", SYS_close, ARG_RESULT(there));
	rebuild_fetch_end(&b);
	int ret = r->run_in(r, p, &b, e);

	batch_deinit(&b);
	return ret < 0 ? error_prefix(e, "pid %d fd %d", m->pid, m->fd) : 0;
}

/* At last: completions of nothing would have been told to it. */
static int register_eventfd(struct rebuild *r, const FileDescription *m, int fd, struct inside *in,
			    struct error *e)
{
	const Ferry__IoUring *u = m->io_uring;
	unsigned op = u->eventfd_async ? IORING_REGISTER_EVENTFD_ASYNC : IORING_REGISTER_EVENTFD;
	int32_t host = u->eventfd ? files_host_fd(r, u->eventfd) : -1;

	if (!u->eventfd)
		return 0;
	if (host < 0)
		return error_say(e, EPROTO, "pid %d fd %d: the image has no eventfd %llu for its io_uring",
				 m->pid, m->fd, (unsigned long long)u->eventfd);
	if (!in) {
		int ret = register_here(fd, op, &host, 1);

		return ret < 0 ? explain(m, -ret, "registering an eventfd with", e) : 0;
	}
	struct batch b = BATCH_INIT;
	unsigned there = rebuild_fetch_fd(&b, host);
	size_t arg = batch_reserve(&b, 4);

	batch_store_result(&b, arg, there, 4);
	batch_call(&b, "register an eventfd with an io_uring", SYS_io_uring_register, ARG(in->fd), ARG(op),
		   ARG_DATA(arg), ARG(1));
	batch_call(&b, "close an eventfd", SYS_close, ARG_RESULT(there));
	rebuild_fetch_end(&b);
	int ret = r->run_in(r, in->p, &b, e);

	batch_deinit(&b);
	return ret < 0 ? error_prefix(e, "pid %d fd %d", m->pid, m->fd) : 0;
}

/* --- putting together ----------------------------------------------------------------------------------- */

/* Its thread takes it over. */
static int enable_inside(struct rebuild *r, const FileDescription *m, int fd, const struct ring_map *map,
			 struct inside *in, struct error *e)
{
	struct batch b = BATCH_INIT;

	in->r = r;
	in->map = map;
	in->p = tree_find(r->tree, m->io_uring->issuer);
	if (!in->p || !r->run_in)
		return error_say(e, EPROTO, "pid %d fd %d: the image has no process %d for its io_uring",
				 m->pid, m->fd, m->io_uring->issuer);
	unsigned there = rebuild_fetch_fd(&b, fd);

	batch_call(&b, "enable an io_uring", SYS_io_uring_register, ARG_RESULT(there),
		   ARG(IORING_REGISTER_ENABLE_RINGS), ARG(0), ARG(0));
	unsigned at = batch_call(&b, "map the rings of an io_uring", SYS_mmap, ARG(0), ARG(map->rings_size),
				 ARG(PROT_READ | PROT_WRITE), ARG(MAP_SHARED), ARG_RESULT(there),
				 ARG(IORING_OFF_SQ_RING));

	rebuild_fetch_end(&b);
	int ret = r->run_in(r, in->p, &b, e);

	if (ret >= 0)
		in->fd = (int)batch_result(&b, there);
	if (ret >= 0)
		in->at = (uint64_t)batch_result(&b, at);
	batch_deinit(&b);
	return ret;
}

static int leave_inside(struct inside *in, struct error *e)
{
	struct batch b = BATCH_INIT;

	batch_call(&b, "unmap", SYS_munmap, ARG(in->at), ARG(in->map->rings_size));
	batch_call(&b, "close an io_uring", SYS_close, ARG(in->fd));
	int ret = in->r->run_in(in->r, in->p, &b, e);

	batch_deinit(&b);
	return ret;
}

int io_uring_connect(struct rebuild *r, const FileDescription *m, struct error *e)
{
	const Ferry__IoUring *u = m->io_uring;
	struct ring_here *h = find_ring(files_rebuild_of(r), u);
	struct inside inside, *in = is_single(u) ? &inside : NULL;
	int fd = files_host_fd(r, m->id), ret = check_distance(m, h, e);

	if (u->cqes.len != u->cq_entries * ring_cqe_size(u->flags) || u->sqes.len != h->map.sqes_size ||
	    u->sq_array.len != (u->flags & RING_NO_SQARRAY ? 0 : u->sq_entries * sizeof(uint32_t)))
		return error_say(e, EPROTO, "the image says nothing sensible of io_uring %llu",
				 (unsigned long long)m->id);
	if (ret >= 0)
		ret = register_files(r, m, fd, e);
	if (ret >= 0)
		ret = register_buffers(r, m, fd, e);
	if (ret >= 0 && in)
		ret = enable_inside(r, m, fd, &h->map, in, e);
	const struct ring_submitter there = {enter_there, laps_there, in}, here = {enter_here, NULL, &fd};

	if (ret >= 0)
		ret = ring_advance(&h->map, fd, in ? &there : &here, u, e);
	if (ret >= 0)
		ring_fill(&h->map, u);
	if (ret >= 0)
		ret = register_eventfd(r, m, fd, in, e);
	if (ret >= 0 && in)
		ret = leave_inside(in, e);
	ring_unmap(&h->map);
	return ret;
}

/*
 * The kernel (since 6.4) maps rings where it likes, and nowhere else: an address is refused, in mmap(2) and
 * in mremap(2).  So it is left only one place: all free ones are taken before, and given back after.
 */
struct gaps {
	uint64_t *v; /* start, end pairs */
	size_t n;
};

static void add_gap(struct gaps *g, uint64_t start, uint64_t end)
{
	if (start >= end)
		return;
	g->v = xrealloc(g->v, (g->n + 2) * sizeof(*g->v));
	g->v[g->n++] = start;
	g->v[g->n++] = end;
}

static int find_gaps(pid_t pid, struct gaps *ret, struct error *e)
{
	struct proc_maps maps;
	uint64_t at = PAGE_SIZE_BYTES, top = arch_task_size();
	int r = proc_maps_read(pid, false, &maps, e);

	if (r < 0)
		return r;
	for (size_t i = 0; i < maps.n && maps.v[i].start < top; at = maps.v[i++].end)
		add_gap(ret, at, maps.v[i].start);
	add_gap(ret, at, top);
	proc_maps_deinit(&maps);
	return 0;
}

static void take_gaps(const struct gaps *g, struct batch *b)
{
	for (size_t i = 0; i < g->n; i += 2) {
		unsigned at =
			batch_call(b, "take free addresses", SYS_mmap, ARG(g->v[i]),
				   ARG(g->v[i + 1] - g->v[i]), ARG(PROT_NONE),
				   ARG(MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE),
				   ARG(-1), ARG(0));

		batch_accept_equal(b, at, (int64_t)g->v[i]);
	}
}

static void free_gaps(struct gaps *g, struct batch *b)
{
	for (size_t i = 0; i < g->n; i += 2)
		batch_call(b, "give free addresses back", SYS_munmap, ARG(g->v[i]),
			   ARG(g->v[i + 1] - g->v[i]));
	free(g->v);
}

static void map_ring(const Ferry__Vma *v, int fd, struct batch *b)
{
	batch_call(b, "unmap", SYS_munmap, ARG(v->start), ARG(v->end - v->start));
	unsigned at = batch_call(b, "map the rings of an io_uring", SYS_mmap, ARG(0), ARG(v->end - v->start),
				 ARG(v->prot), ARG(MAP_SHARED), ARG(fd), ARG(v->offset));

	batch_accept_equal(b, at, (int64_t)v->start);
	if (v->flags & FERRY__VMA_FLAG__VMA_DONTFORK)
		batch_call(b, "madvise DONTFORK", SYS_madvise, ARG(v->start), ARG(v->end - v->start),
			   ARG(MADV_DONTFORK));
}

static int map_rings(const Ferry__Mm *mm, const Ferry__IoUring *u, struct process *p, int fd, struct batch *b,
		     struct error *e)
{
	struct gaps gaps = {0};
	bool any = false;

	for (size_t i = 0; mm && i < mm->n_vmas; i++) {
		const Ferry__Vma *v = mm->vmas[i];

		if (v->kind != FERRY__VMA_KIND__VMA_RING || v->ring != u->ino)
			continue;
		int r = any ? 0 : find_gaps(p->pid, &gaps, e);

		if (r < 0)
			return r;
		if (!any)
			take_gaps(&gaps, b);
		any = true;
		map_ring(v, fd, b);
	}
	free_gaps(&gaps, b);
	return 0;
}

int io_uring_place(struct rebuild *r, const FileDescription *m, struct process *p, int fd, struct batch *b,
		   struct error *e)
{
	const Ferry__IoUring *u = m->io_uring;

	int ret = map_rings(
		(const Ferry__Mm *)snapshot_find(r->snapshot, FERRY__RECORD_TYPE__RECORD_MM, p->pid, 0), u, p,
		fd, b, e);

	if (ret < 0)
		return ret;
	for (size_t i = 0; i < u->n_indexes; i++) {
		struct io_uring_rsrc_update up = {.offset = u->indexes[i]->index, .data = (uint64_t)fd};

		if (u->indexes[i]->tid == p->pid)
			batch_call(b, "register the descriptor of an io_uring", SYS_io_uring_register,
				   ARG(fd), ARG(IORING_REGISTER_RING_FDS), ARG_PUT(b, &up, sizeof(up)),
				   ARG(1));
	}
	return 0;
}
