/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Contexts of asynchronous I/O, made again by the process itself.  The kernel puts a new ring anywhere; moved
 * by mremap(2) it changes its name, too.  Its place in the ring is a number of the kernel's own that only
 * requests move: reads of no bytes, whose events count as read when the head of the ring, which is the
 * program's, follows.  As many as were unread are left unread, and overwritten by the true ones.
 *
 * How many events fit is the kernel's decision: twice what was asked for, at least eight for each CPU that
 * the machine can have, and full pages.  Programs read the ring themselves, so it must be the same number.
 *
 * The kernel deals the room for requests out to CPUs in portions: hence on one CPU only.
 */
#include "state/memory/aio.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "base/util.h"
#include "state/memory/memory.h"

#define MAX_EVENTS   (1u << 20)
#define SCRATCH_SIZE (2 * PAGE_SIZE_BYTES) /* in the process: a request, and pointers to it */
#define AT_ONCE      ((SCRATCH_SIZE - sizeof(struct iocb)) / sizeof(uint64_t))

/* --- sizes ---------------------------------------------------------------------------------------------- */

static uint64_t length_of(uint64_t events)
{
	return PAGE_ROUND_UP(sizeof(struct aio_ring) + events * sizeof(struct io_event));
}

uint64_t aio_events(uint64_t requests, uint64_t cpus)
{
	uint64_t least = MAX(requests, cpus * 4) * 2 + 2;

	return (length_of(least) - sizeof(struct aio_ring)) / sizeof(struct io_event);
}

uint64_t aio_requests(uint64_t events, uint64_t wanted, uint64_t cpus)
{
	uint64_t most = events > 4 ? (events - 2) / 2 : 0;

	if (wanted && aio_events(wanted, cpus) == events)
		return wanted;
	return most && aio_events(most, cpus) == events ? most : 0;
}

/* --- check ---------------------------------------------------------------------------------------------- */

/* How many numbers are in a list such as "0-3" or "0,2-7". */
static uint64_t possible_cpus(void)
{
	cleanup_free char *text = NULL;
	uint64_t n = 0;

	if (read_file("/sys/devices/system/cpu/possible", &text) < 0)
		return (uint64_t)sysconf(_SC_NPROCESSORS_CONF);
	for (char *at = text; *at && *at != '\n'; at += *at == ',') {
		uint64_t first = strtoull(at, &at, 10);

		n += *at == '-' ? strtoull(at + 1, &at, 10) - first + 1 : 1;
		if (*at != ',')
			break;
	}
	return n;
}

static uint64_t number_in(const char *path, uint64_t otherwise)
{
	cleanup_free char *text = NULL;

	return read_file(path, &text) < 0 ? otherwise : strtoull(text, NULL, 10);
}

static int check_context(const Ferry__AioContext *x, int32_t pid, bool warm, uint64_t *sum, struct error *e)
{
	uint64_t cpus = possible_cpus();

	if (x->events < 2 || x->events > MAX_EVENTS || x->length != length_of(x->events) ||
	    x->addr % PAGE_SIZE_BYTES || x->head >= x->events || x->tail >= x->events ||
	    (!warm && x->unread.len != (x->tail + x->events - x->head) % x->events * sizeof(struct io_event)))
		return error_say(
			e, EPROTO,
			"pid %d: the image says nothing sensible of its context of asynchronous I/O at "
			"0x%llx",
			pid, (unsigned long long)x->addr);
	uint64_t n = aio_requests(x->events, x->max_requests, cpus);

	if (!n)
		return error_say(
			e, ENOTSUP,
			"pid %d: its ring of asynchronous I/O at 0x%llx has room for %u events; here "
			"it would have room for %llu (this machine can have %llu CPUs)",
			pid, (unsigned long long)x->addr, x->events,
			(unsigned long long)aio_events(x->max_requests, cpus), (unsigned long long)cpus);
	*sum += n;
	return 0;
}

int aio_check(struct rebuild *r, int32_t pid, int32_t tid, const ProtobufCMessage *msg, struct error *e)
{
	const Ferry__Aio *m = (const Ferry__Aio *)msg;
	aio_context_t none = 0;
	uint64_t sum = 0, used = number_in("/proc/sys/fs/aio-nr", 0),
		 limit = number_in("/proc/sys/fs/aio-max-nr", UINT64_MAX);
	int x = 0;

	(void)tid;
	if (syscall(SYS_io_setup, 0, &none) < 0 && errno == ENOSYS)
		return error_set(e, ENOSYS,
				 "pid %d uses asynchronous I/O (io_setup), which this kernel lacks", pid);
	for (size_t i = 0; i < m->n_contexts && x >= 0; i++)
		x = check_context(m->contexts[i], pid, r->snapshot->has_warm, &sum, e);
	if (x >= 0 && used + sum > limit)
		return error_say(
			e, EAGAIN,
			"pid %d asks for %llu requests of asynchronous I/O; here %llu of %llu are taken "
			"(fs.aio-max-nr)",
			pid, (unsigned long long)sum, (unsigned long long)used, (unsigned long long)limit);
	return x;
}

/* --- making --------------------------------------------------------------------------------------------- */

struct maker {
	struct rebuild *r;
	struct process *p;
	struct error *e;
	int mem;          /* /proc/PID/mem */
	int fd;           /* there: an empty file */
	uint64_t scratch; /* there */
	uint64_t context; /* at hand: its name, which is where it is */
};

static int run(struct maker *k, struct batch *b)
{
	int x = k->r->run_in(k->r, k->p, b, k->e);

	return x < 0 ? error_prefix(k->e, "pid %d: asynchronous I/O", k->p->pid) : 0;
}

static int write_there(struct maker *k, uint64_t addr, const void *from, size_t size)
{
	int x = pwrite_full(k->mem, from, size, (off_t)addr);

	return x < 0 ? error_set(k->e, -x, "pid %d: writing 0x%llx, a ring of asynchronous I/O", k->p->pid,
				 (unsigned long long)addr)
		     : 0;
}

static int begin(struct maker *k)
{
	cleanup_free char *path = xasprintf("/proc/%d/mem", k->p->pid);
	struct {
		struct iocb request;
		uint64_t pointers[AT_ONCE];
	} s = {0};
	struct batch b = BATCH_INIT;

	k->mem = open(path, O_RDWR | O_CLOEXEC);
	if (k->mem < 0)
		return error_set(k->e, errno, "open %s", path);
	unsigned fd =
		batch_call(&b, "make an empty file", SYS_memfd_create, ARG_STR(&b, "aio"), ARG(MFD_CLOEXEC));
	unsigned at =
		batch_call(&b, "map memory", SYS_mmap, ARG(0), ARG(SCRATCH_SIZE), ARG(PROT_READ | PROT_WRITE),
			   ARG(MAP_PRIVATE | MAP_ANONYMOUS), ARG(-1), ARG(0));
	int x = run(k, &b);

	if (x >= 0) {
		k->fd = (int)batch_result(&b, fd);
		k->scratch = (uint64_t)batch_result(&b, at);
		s.request.aio_lio_opcode = IOCB_CMD_PREAD;
		s.request.aio_fildes = (uint32_t)k->fd;
		for (size_t i = 0; i < AT_ONCE; i++)
			s.pointers[i] = k->scratch;
		x = write_there(k, k->scratch, &s, sizeof(s));
	}
	batch_deinit(&b);
	return x;
}

static int end(struct maker *k)
{
	struct batch b = BATCH_INIT;

	batch_call(&b, "unmap", SYS_munmap, ARG(k->scratch), ARG(SCRATCH_SIZE));
	batch_call(&b, "close an empty file", SYS_close, ARG(k->fd));
	int x = run(k, &b);

	batch_deinit(&b);
	return x;
}

/* It is somewhere, of the size that it should have. */
static int set_up(struct maker *k, const Ferry__AioContext *m)
{
	uint64_t n = aio_requests(m->events, m->max_requests, possible_cpus());
	struct batch b = BATCH_INIT;
	size_t name = batch_reserve(&b, 8);

	batch_call(&b, "make a context of asynchronous I/O (see fs.aio-max-nr)", SYS_io_setup, ARG(n),
		   ARG_DATA(name));
	unsigned at = batch_op(&b, "read its name", PB_OP_LOAD, ARG_DATA(name), ARG(8));
	unsigned nr =
		batch_op(&b, "find its size", PB_OP_ADD, ARG_RESULT(at), ARG(offsetof(struct aio_ring, nr)));

	nr = batch_op(&b, "read its size", PB_OP_LOAD, ARG_RESULT(nr), ARG(4));
	int x = run(k, &b);

	if (x >= 0 && (uint64_t)batch_result(&b, nr) != m->events)
		x = error_say(
			k->e, ENOTSUP,
			"pid %d: its ring of asynchronous I/O at 0x%llx has room for %u events, one made "
			"here for %lld",
			k->p->pid, (unsigned long long)m->addr, m->events, (long long)batch_result(&b, nr));
	k->context = x < 0 ? 0 : (uint64_t)batch_result(&b, at);
	batch_deinit(&b);
	return x;
}

static int move(struct maker *k, const Ferry__AioContext *m)
{
	struct batch b = BATCH_INIT;
	unsigned at =
		batch_call(&b, "move a ring of asynchronous I/O", SYS_mremap, ARG(k->context), ARG(m->length),
			   ARG(m->length), ARG(MREMAP_MAYMOVE | MREMAP_FIXED), ARG(m->addr));

	batch_accept_equal(&b, at, (int64_t)m->addr);
	int x = run(k, &b);

	batch_deinit(&b);
	k->context = m->addr;
	return x;
}

/* So many requests that end at once; their events count as read, or not. */
static int submit(struct maker *k, uint64_t n, bool read)
{
	while (n) {
		struct batch b = BATCH_INIT;
		uint64_t at_once = MIN(n, AT_ONCE);
		unsigned i = batch_call(&b, "submit requests that do nothing", SYS_io_submit, ARG(k->context),
					ARG(at_once), ARG(k->scratch + sizeof(struct iocb)));

		if (read)
			batch_op(&b, "read their events", PB_OP_COPY,
				 ARG(k->context + offsetof(struct aio_ring, head)),
				 ARG(k->context + offsetof(struct aio_ring, tail)), ARG(4));
		int x = run(k, &b);
		uint64_t done = x < 0 ? 0 : (uint64_t)batch_result(&b, i);

		batch_deinit(&b);
		if (x < 0)
			return x;
		if (!done)
			return error_say(k->e, EIO, "pid %d: asynchronous I/O takes no request", k->p->pid);
		n -= MIN(n, done);
	}
	return 0;
}

/* As it was protected and advised, which its placeholder was, too. */
static int protect(struct maker *k, const Ferry__Mm *mm, uint64_t start, uint32_t now)
{
	struct batch b = BATCH_INIT;
	int x = 0;

	for (size_t i = 0; mm && i < mm->n_vmas; i++) {
		const Ferry__Vma *v = mm->vmas[i];

		if (v->start != start || v->kind != FERRY__VMA_KIND__VMA_AIO)
			continue;
		if (v->prot != now)
			batch_call(&b, "mprotect", SYS_mprotect, ARG(start), ARG(v->end - start),
				   ARG(v->prot));
		if (v->flags & FERRY__VMA_FLAG__VMA_DONTFORK)
			batch_call(&b, "madvise DONTFORK", SYS_madvise, ARG(start), ARG(v->end - start),
				   ARG(MADV_DONTFORK));
		if (v->flags & FERRY__VMA_FLAG__VMA_DONTDUMP)
			batch_call(&b, "madvise DONTDUMP", SYS_madvise, ARG(start), ARG(v->end - start),
				   ARG(MADV_DONTDUMP));
	}
	if (b.n)
		x = run(k, &b);
	batch_deinit(&b);
	return x;
}

static int make_context(struct maker *k, const Ferry__Mm *mm, const Ferry__AioContext *m)
{
	uint64_t n = m->unread.len / sizeof(struct io_event);
	uint64_t first = MIN(n, m->events - m->head), events = m->addr + sizeof(struct aio_ring);
	const struct io_event *v = (const struct io_event *)m->unread.data;
	int x = set_up(k, m);

	if (x >= 0)
		x = move(k, m);
	for (uint64_t done = 0, part; done < m->head && x >= 0; done += part) {
		part = MIN(m->head - done, MAX(m->events / 2, 1u));
		x = submit(k, part, true);
	}
	if (x >= 0)
		x = submit(k, n, false);
	if (x >= 0)
		x = write_there(k, events + m->head * sizeof(*v), v, first * sizeof(*v));
	if (x >= 0)
		x = write_there(k, events, v + first, (n - first) * sizeof(*v));
	return x < 0 ? x : protect(k, mm, m->addr, PROT_READ | PROT_WRITE);
}

/* The memory of a ring without its context. */
static int make_copy(struct maker *k, const Ferry__Mm *mm, const Ferry__AioCopy *m)
{
	struct batch b = BATCH_INIT;
	unsigned at = batch_call(&b, "map memory", SYS_mmap, ARG(m->addr), ARG(m->length),
				 ARG(PROT_READ | PROT_WRITE), ARG(MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED),
				 ARG(-1), ARG(0));

	batch_accept_equal(&b, at, (int64_t)m->addr);
	int x = run(k, &b);

	batch_deinit(&b);
	if (x >= 0)
		x = write_there(k, m->addr, m->content.data, m->content.len);
	return x < 0 ? x : protect(k, mm, m->addr, PROT_READ | PROT_WRITE);
}

static bool is_placed(const Ferry__Mm *mm, uint64_t addr, uint64_t length)
{
	for (size_t i = 0; mm && i < mm->n_vmas; i++)
		if (mm->vmas[i]->kind == FERRY__VMA_KIND__VMA_AIO && mm->vmas[i]->start == addr &&
		    mm->vmas[i]->end == addr + length)
			return true;
	return false;
}

static int make_all(struct maker *k, const Ferry__Mm *mm, const Ferry__Aio *m)
{
	cpu_set_t all, one;
	int x = begin(k);

	CPU_ZERO(&one);
	bool moved = sched_getaffinity(k->p->pid, sizeof(all), &all) == 0;

	for (int i = 0; moved && i < CPU_SETSIZE && !CPU_COUNT(&one); i++)
		if (CPU_ISSET(i, &all))
			CPU_SET(i, &one);
	moved = moved && sched_setaffinity(k->p->pid, sizeof(one), &one) == 0;
	for (size_t i = 0; i < m->n_contexts && x >= 0; i++)
		x = make_context(k, mm, m->contexts[i]);
	for (size_t i = 0; i < m->n_copies && x >= 0; i++)
		x = make_copy(k, mm, m->copies[i]);
	if (moved && sched_setaffinity(k->p->pid, sizeof(all), &all) < 0 && x >= 0)
		x = error_set(k->e, errno, "pid %d: setting its CPUs", k->p->pid);
	return x < 0 ? x : end(k);
}

int aio_prepare(struct rebuild *r, const ProtobufCMessage *msg, struct error *e)
{
	const Ferry__Aio *m = (const Ferry__Aio *)msg;
	struct maker k = {.r = r, .p = tree_find(r->tree, m->pid), .e = e, .mem = -1};
	const Ferry__Mm *mm =
		(const Ferry__Mm *)snapshot_find(r->snapshot, FERRY__RECORD_TYPE__RECORD_MM, m->pid, 0);
	bool sound = k.p && r->run_in;

	for (size_t i = 0; i < m->n_contexts && sound; i++)
		sound = is_placed(mm, m->contexts[i]->addr, m->contexts[i]->length);
	for (size_t i = 0; i < m->n_copies && sound; i++)
		sound = is_placed(mm, m->copies[i]->addr, m->copies[i]->length) &&
			m->copies[i]->content.len == m->copies[i]->length;
	if (!sound)
		return error_say(e, EPROTO, "the image says nothing sensible of asynchronous I/O of pid %d",
				 m->pid);
	int x = make_all(&k, mm, m);

	if (k.mem >= 0)
		close(k.mem);
	return x;
}
