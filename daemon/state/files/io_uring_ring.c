/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The rings of an io_uring, mapped here.
 *
 * The kernel keeps counters of its own of what it took from the submission ring and put into the completion
 * ring (cached_sq_head, cached_cq_tail), which begin at 0 and cannot be set; the program has copies of both
 * in its memory.  So a new ring is brought to the old counters by requests that do nothing, as many: some
 * millions a second.  Both counters go on with a NOP; the first alone with one whose success is not reported;
 * the second alone with a message from another ring.
 *
 * The kernel remembers which places of the completion ring were free when it last looked.  What it remembers
 * stays true as long as the head that it sees never goes back: so the head never passes the one that it is
 * to have in the end.
 */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/util.h"
#include "state/files/io_uring.h"

bool ring_is(const char *link)
{
	return !strcmp(link, "anon_inode:[io_uring]");
}

void ring_offsets(const struct io_uring_params *p, uint32_t ret[RING_N_OFFSETS])
{
	const struct io_sqring_offsets *s = &p->sq_off;
	const struct io_cqring_offsets *c = &p->cq_off;
	const uint32_t v[RING_N_OFFSETS] = {
		s->head, s->tail, s->ring_mask, s->ring_entries, s->flags,    s->dropped, s->array,
		c->head, c->tail, c->ring_mask, c->ring_entries, c->overflow, c->cqes,    c->flags};

	memcpy(ret, v, sizeof(v));
}

size_t ring_cqe_size(uint32_t flags)
{
	return flags & IORING_SETUP_CQE32 ? 32 : 16;
}

size_t ring_sqe_size(uint32_t flags)
{
	return flags & IORING_SETUP_SQE128 ? 128 : 64;
}

int ring_make(uint32_t flags, uint32_t sq_entries, uint32_t cq_entries, struct io_uring_params *p)
{
	memset(p, 0, sizeof(*p));
	p->flags = (flags & ~(uint32_t)(IORING_SETUP_CLAMP | IORING_SETUP_ATTACH_WQ)) | IORING_SETUP_CQSIZE;
	p->cq_entries = cq_entries;
	int fd = (int)syscall(SYS_io_uring_setup, sq_entries, p);

	return fd < 0 ? -errno : fd;
}

int ring_map(int fd, const struct io_uring_params *p, struct ring_map *ret)
{
	size_t cqes = p->cq_off.cqes + p->cq_entries * ring_cqe_size(p->flags),
	       array = p->flags & RING_NO_SQARRAY ? 0 : p->sq_off.array + p->sq_entries * sizeof(uint32_t);

	*ret = (struct ring_map){.p = *p,
				 .rings_size = MAX(cqes, array),
				 .sqes_size = p->sq_entries * ring_sqe_size(p->flags)};
	ret->rings = mmap(NULL, ret->rings_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd,
			  IORING_OFF_SQ_RING);
	if (ret->rings == MAP_FAILED) {
		ret->rings = NULL;
		return -errno;
	}
	ret->sqes = mmap(NULL, ret->sqes_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd,
			 IORING_OFF_SQES);
	if (ret->sqes == MAP_FAILED) {
		int err = errno;

		ret->sqes = NULL;
		ring_unmap(ret);
		return -err;
	}
	return 0;
}

void ring_unmap(struct ring_map *m)
{
	if (m->rings)
		munmap(m->rings, m->rings_size);
	if (m->sqes)
		munmap(m->sqes, m->sqes_size);
	*m = (struct ring_map){0};
}

uint32_t *ring_word(const struct ring_map *m, uint32_t offset)
{
	return (uint32_t *)(void *)(m->rings + offset);
}

static uint32_t get(const struct ring_map *m, uint32_t offset)
{
	return __atomic_load_n(ring_word(m, offset), __ATOMIC_ACQUIRE);
}

static void set(const struct ring_map *m, uint32_t offset, uint32_t v)
{
	__atomic_store_n(ring_word(m, offset), v, __ATOMIC_RELEASE);
}

/* --- counters ------------------------------------------------------------------------------------------- */

/* Requests that do nothing are all zeros, as is the memory of a new ring; so is the array of indexes. */
static void set_sqe_flags(const struct ring_map *m, uint8_t flags)
{
	for (uint32_t i = 0; i < m->p.sq_entries; i++)
		((struct io_uring_sqe *)(void *)(m->sqes + i * ring_sqe_size(m->p.flags)))->flags = flags;
}

/* What was reported is read, up to @last: how many more can be reported. */
static uint32_t make_room(const struct ring_map *m, uint32_t last)
{
	uint32_t tail = get(m, m->p.cq_off.tail), head = get(m, m->p.cq_off.head);
	uint32_t steps = MIN(tail - head, last - head);

	set(m, m->p.cq_off.head, head + steps);
	return m->p.cq_entries - (tail - head - steps);
}

static int lost_step(struct error *e)
{
	return error_say(e, EIO, "the counters of a new io_uring do not move as they should");
}

static int submit(const struct ring_map *m, const struct ring_submitter *s, uint32_t n, struct error *e)
{
	set(m, m->p.sq_off.tail, get(m, m->p.sq_off.head) + n);
	int done = s->enter(s->ctx, n, e);

	return done < 0 ? done : (uint32_t)done == n ? 0 : lost_step(e);
}

/* As long as all that is reported may be read. */
static int submit_laps(const struct ring_map *m, const struct ring_submitter *s, uint32_t *n, uint32_t last,
		       bool silent, struct error *e)
{
	uint32_t reported = silent ? *n : MIN(*n, last - get(m, m->p.cq_off.tail)),
		 laps = reported / m->p.sq_entries;

	if (!s->laps || !laps || make_room(m, last) != m->p.cq_entries)
		return 0;
	set(m, m->p.sq_off.tail, get(m, m->p.sq_off.head) + laps * m->p.sq_entries);
	*n -= laps * m->p.sq_entries;
	return s->laps(s->ctx, laps, e);
}

static int submit_nothing(const struct ring_map *m, const struct ring_submitter *s, uint32_t n, uint32_t last,
			  bool silent, struct error *e)
{
	set_sqe_flags(m, silent ? RING_SKIP_SUCCESS : 0);
	int r = submit_laps(m, s, &n, last, silent, e);

	while (n && r >= 0) {
		uint32_t room = silent ? n : make_room(m, last), part = MIN(MIN(n, m->p.sq_entries), room);

		r = part ? submit(m, s, part, e) : lost_step(e);
		n -= part;
	}
	set_sqe_flags(m, 0);
	if (!silent)
		make_room(m, last);
	return r;
}

static int enter_own(void *ctx, uint32_t n, struct error *e)
{
	long done = syscall(SYS_io_uring_enter, *(int *)ctx, n, 0, 0, NULL, 0);

	return done < 0 ? error_set(e, errno, "sending messages to an io_uring") : (int)done;
}

/* Completions of nothing: messages from a ring of ours. */
static int report_nothing(int fd, const struct ring_map *m, uint32_t n, uint32_t last, struct error *e)
{
	struct io_uring_params p;
	cleanup_close int from = ring_make(0, 64, 128, &p);
	struct ring_map ours = {0};
	struct ring_submitter s = {.enter = enter_own, .ctx = &from};
	int r = from < 0 ? from : ring_map(from, &p, &ours);

	if (r < 0)
		return error_set(e, -r, "making an io_uring");
	for (uint32_t i = 0; i < p.sq_entries; i++) {
		struct io_uring_sqe *q = (struct io_uring_sqe *)(void *)(ours.sqes + i * sizeof(*q));

		q->opcode = IORING_OP_MSG_RING;
		q->fd = fd;
		ring_word(&ours, p.sq_off.array)[i] = i;
	}
	while (n && r >= 0) {
		uint32_t room = make_room(m, last), part = MIN(MIN(n, p.sq_entries), room);

		r = part ? submit(&ours, &s, part, e) : lost_step(e);
		make_room(&ours, get(&ours, p.cq_off.tail));
		n -= part;
	}
	make_room(m, last);
	ring_unmap(&ours);
	return r;
}

uint64_t ring_distance(const struct ring_map *map, const Ferry__IoUring *m)
{
	uint32_t sq = m->sq_head - get(map, map->p.sq_off.head),
		 cq = m->cq_tail - get(map, map->p.cq_off.tail);

	return MAX(sq, cq);
}

int ring_advance(const struct ring_map *map, int fd, const struct ring_submitter *s, const Ferry__IoUring *m,
		 struct error *e)
{
	uint32_t sq = m->sq_head - get(map, map->p.sq_off.head),
		 cq = m->cq_tail - get(map, map->p.cq_off.tail);
	int r = 0;

	if (sq > cq)
		r = submit_nothing(map, s, sq - cq, m->cq_head, true, e);
	else if (cq > sq)
		r = report_nothing(fd, map, cq - sq, m->cq_head, e);
	if (r >= 0)
		r = submit_nothing(map, s, MIN(sq, cq), m->cq_head, false, e);
	if (r >= 0 &&
	    (get(map, map->p.sq_off.head) != m->sq_head || get(map, map->p.cq_off.tail) != m->cq_tail))
		r = lost_step(e);
	return r;
}

void ring_fill(const struct ring_map *map, const Ferry__IoUring *m)
{
	const struct io_uring_params *p = &map->p;

	memcpy(map->rings + p->cq_off.cqes, m->cqes.data, m->cqes.len);
	if (m->sq_array.len)
		memcpy(map->rings + p->sq_off.array, m->sq_array.data, m->sq_array.len);
	memcpy(map->sqes, m->sqes.data, m->sqes.len);
	set(map, p->sq_off.dropped, m->sq_dropped);
	set(map, p->cq_off.overflow, m->cq_overflow);
	set(map, p->cq_off.flags, m->cq_flags);
	set(map, p->cq_off.head, m->cq_head);
	set(map, p->sq_off.tail, m->sq_tail);
}
