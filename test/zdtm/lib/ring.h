/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* For tests with an io_uring, by its system calls. */
#include <linux/io_uring.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "zdtm.h"

#define RING_NO_SQARRAY (1u << 16) /* linux/io_uring.h, since 6.6 */

struct ring {
	int fd;
	struct io_uring_params p;
	char *rings;
	struct io_uring_sqe *sqes;
	unsigned sq_tail, cq_head; /* of our own, as a library has them */
	bool reversed;             /* entries of the array go the other way round */
};

static inline unsigned *ring_word(const struct ring *r, unsigned offset)
{
	return (unsigned *)(void *)(r->rings + offset);
}

static inline size_t ring_cqe_size(const struct ring *r)
{
	return r->p.flags & IORING_SETUP_CQE32 ? 32 : 16;
}

static inline void ring_new(struct ring *r, unsigned entries, unsigned flags)
{
	*r = (struct ring){.p = {.flags = flags}};
	r->fd = syscall(SYS_io_uring_setup, entries, &r->p);
	if (r->fd < 0)
		test_skip("no io_uring with flags 0x%x: %s", flags, strerror(errno));
	size_t cqes = r->p.cq_off.cqes + r->p.cq_entries * ring_cqe_size(r),
	       array = r->p.sq_off.array + r->p.sq_entries * sizeof(unsigned),
	       sqe = flags & IORING_SETUP_SQE128 ? 128 : 64;

	r->rings = (char *)MUST(mmap(NULL, cqes > array ? cqes : array, PROT_READ | PROT_WRITE, MAP_SHARED,
				     r->fd, IORING_OFF_SQ_RING));
	r->sqes = (struct io_uring_sqe *)MUST(mmap(NULL, r->p.sq_entries * sqe, PROT_READ | PROT_WRITE,
						   MAP_SHARED, r->fd, IORING_OFF_SQES));
}

static inline struct io_uring_sqe *ring_sqe(struct ring *r)
{
	unsigned mask = r->p.sq_entries - 1, at = r->sq_tail & mask, slot = r->reversed ? mask - at : at;
	struct io_uring_sqe *s = r->sqes + (r->p.flags & IORING_SETUP_SQE128 ? 2 * slot : slot);

	if (!(r->p.flags & RING_NO_SQARRAY))
		ring_word(r, r->p.sq_off.array)[at] = slot;
	r->sq_tail++;
	memset(s, 0, sizeof(*s));
	return s;
}

static inline void ring_publish(struct ring *r)
{
	__atomic_store_n(ring_word(r, r->p.sq_off.tail), r->sq_tail, __ATOMIC_RELEASE);
}

static inline void ring_enter(struct ring *r, unsigned submit, unsigned wait)
{
	for (;;) {
		long n = syscall(SYS_io_uring_enter, r->fd, submit, wait, IORING_ENTER_GETEVENTS, NULL, 0);

		/* A stop ends the wait, as for every program. */
		if (n < 0 && errno == EINTR && !submit)
			continue;
		CHECK(n >= 0, "io_uring_enter");
		if (n == submit)
			return;
		submit -= n;
	}
}

static inline unsigned ring_ready(const struct ring *r)
{
	return __atomic_load_n(ring_word(r, r->p.cq_off.tail), __ATOMIC_ACQUIRE) - r->cq_head;
}

/* The next completion, which must be there, or come. */
static inline void ring_expect(struct ring *r, uint64_t data, int res)
{
	while (!ring_ready(r))
		ring_enter(r, 0, 1);
	const struct io_uring_cqe *c =
		(const void *)(r->rings + r->p.cq_off.cqes +
			       (r->cq_head & (r->p.cq_entries - 1)) * ring_cqe_size(r));

	CHECK_EQ(c->user_data, data);
	CHECK_EQ(c->res, res);
	__atomic_store_n(ring_word(r, r->p.cq_off.head), ++r->cq_head, __ATOMIC_RELEASE);
}

static inline void ring_nops(struct ring *r, unsigned n, uint64_t data)
{
	for (unsigned i = 0; i < n; i++)
		ring_sqe(r)->user_data = data + i;
	ring_publish(r);
	ring_enter(r, n, 0);
}

/* @laps times all around. */
static inline void ring_turn(struct ring *r, unsigned laps)
{
	for (unsigned i = 0; i < laps; i++) {
		ring_nops(r, r->p.sq_entries, 7000);
		for (unsigned k = 0; k < r->p.sq_entries; k++)
			ring_expect(r, 7000 + k, 0);
	}
}

/* One read or write; the file is @fd, or the registered one of that number if @fixed. */
static inline void ring_rw(struct ring *r, int op, int fd, bool fixed, void *buffer, unsigned size,
			   uint64_t offset, int buffer_index, uint64_t data)
{
	struct io_uring_sqe *s = ring_sqe(r);

	s->opcode = op;
	s->fd = fd;
	s->flags = fixed ? IOSQE_FIXED_FILE : 0;
	s->addr = (uintptr_t)buffer;
	s->len = size;
	s->off = offset;
	s->buf_index = buffer_index < 0 ? 0 : buffer_index;
	s->user_data = data;
	ring_publish(r);
	ring_enter(r, 1, 1);
}

static inline int ring_register(const struct ring *r, unsigned op, const void *arg, unsigned n)
{
	return syscall(SYS_io_uring_register, r->fd, op, arg, n);
}
