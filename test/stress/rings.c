/* SPDX-License-Identifier: Apache-2.0 */
/* io_uring, by its system calls. */
#include <errno.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "ways.h"

#ifndef IORING_SETUP_NO_MMAP
#define IORING_SETUP_NO_MMAP (1u << 14)
#endif
#ifndef IORING_SETUP_REGISTERED_FD_ONLY
#define IORING_SETUP_REGISTERED_FD_ONLY (1u << 15)
#endif
#ifndef IORING_REGISTER_USE_REGISTERED_RING
#define IORING_REGISTER_USE_REGISTERED_RING (1u << 31)
#endif
#ifndef IORING_ENTER_REGISTERED_RING
#define IORING_ENTER_REGISTERED_RING (1u << 4)
#endif
#define FILE_SIZE (1ul << 20)

static struct ring {
	int fd;
	unsigned enter_flags, register_flag;
	struct io_uring_params p;
	char *rings;
	struct io_uring_sqe *sqes;
} ring;
static int source;
static bool fixed;

static unsigned *at(unsigned offset)
{
	return (unsigned *)(ring.rings + offset);
}

static void open_ring(void)
{
	ring.fd = (int)syscall(SYS_io_uring_setup, 8, &ring.p);
	if (ring.fd < 0)
		skip("no io_uring: %s", strerror(errno));
	size_t size = ring.p.cq_off.cqes + ring.p.cq_entries * sizeof(struct io_uring_cqe);

	if (size < ring.p.sq_off.array + ring.p.sq_entries * 4)
		size = ring.p.sq_off.array + ring.p.sq_entries * 4;
	ring.rings = (char *)MUST(
		mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, ring.fd, IORING_OFF_SQ_RING));
	ring.sqes = (struct io_uring_sqe *)MUST(mmap(NULL, ring.p.sq_entries * sizeof(struct io_uring_sqe),
						     PROT_READ | PROT_WRITE, MAP_SHARED, ring.fd,
						     IORING_OFF_SQES));
}

/* A ring in our own memory, known to the kernel by a number that is no descriptor. */
static void open_hidden_ring(void)
{
	char *mem = area(12, MAP_PRIVATE, -1, 2 * PAGE);

	memset(mem, 0, 2 * PAGE);
	ring.p.flags = IORING_SETUP_NO_MMAP | IORING_SETUP_REGISTERED_FD_ONLY;
	/* Older headers do not call it user_addr. */
	ring.p.cq_off.resv2 = (uintptr_t)mem;
	ring.p.sq_off.resv2 = (uintptr_t)mem + PAGE;
	ring.fd = (int)syscall(SYS_io_uring_setup, 8, &ring.p);
	if (ring.fd < 0)
		skip("no io_uring without a descriptor: %s", strerror(errno));
	ring.enter_flags = IORING_ENTER_REGISTERED_RING;
	ring.register_flag = IORING_REGISTER_USE_REGISTERED_RING;
	ring.rings = mem;
	ring.sqes = (struct io_uring_sqe *)(mem + PAGE);
}

static void fill(void)
{
	char name[] = "/var/tmp/ferry-stress-XXXXXX";
	char *buf = area(10, MAP_PRIVATE, -1, FILE_SIZE);

	source = (int)MUST(mkostemp(name, O_CLOEXEC));
	unlink(name);
	scribble(buf, FILE_SIZE);
	MUST(pwrite(source, buf, FILE_SIZE, 0));
	munmap(buf, FILE_SIZE);
	memset(area(0, MAP_PRIVATE, -1, AREA_SIZE), 1, AREA_SIZE);
}

static void register_area(void)
{
	struct iovec v = {area_at(0), AREA_SIZE};

	fixed = true;
	if (syscall(SYS_io_uring_register, ring.fd, IORING_REGISTER_BUFFERS | ring.register_flag, &v, 1) < 0)
		skip("io_uring cannot register a buffer: %s", strerror(errno));
}

static void setup_ring(void)
{
	fill();
	open_ring();
}

static void setup_fixed(void)
{
	setup_ring();
	register_area();
}

static void setup_hidden(void)
{
	fill();
	open_hidden_ring();
	register_area();
}

static void step_ring(unsigned w)
{
	char *to = next_page(area_at(w), AREA_SIZE - 4 * PAGE);
	struct iovec v = {to, 1 + rnd() % (3 * PAGE)};
	unsigned tail = *at(ring.p.sq_off.tail), mask = *at(ring.p.sq_off.ring_mask);
	bool vector = !fixed && rnd() % 2;

	ring.sqes[tail & mask] = (struct io_uring_sqe){
		.opcode = fixed    ? IORING_OP_READ_FIXED
			  : vector ? IORING_OP_READV
				   : IORING_OP_READ,
		.fd = source,
		.off = rnd() % (FILE_SIZE - 4 * PAGE),
		.addr = vector ? (uintptr_t)&v : (uintptr_t)to,
		.len = vector ? 1 : (uint32_t)v.iov_len,
	};
	at(ring.p.sq_off.array)[tail & mask] = tail & mask;
	__atomic_store_n(at(ring.p.sq_off.tail), tail + 1, __ATOMIC_RELEASE);
	MUST(syscall(SYS_io_uring_enter, ring.fd, 1, 1, IORING_ENTER_GETEVENTS | ring.enter_flags, NULL, 0));

	unsigned head = *at(ring.p.cq_off.head);
	struct io_uring_cqe *c = (struct io_uring_cqe *)(ring.rings + ring.p.cq_off.cqes) +
				 (head & *at(ring.p.cq_off.ring_mask));

	if (c->res < 0) {
		errno = -c->res;
		MUST(-1);
	}
	__atomic_store_n(at(ring.p.cq_off.head), head + 1, __ATOMIC_RELEASE);
	pause_us(100);
}

const struct way ways_rings[] = {
	{"io_uring", 1, setup_ring, step_ring, NULL},
	{"io_uring-fixed", 1, setup_fixed, step_ring, NULL},
	{"io_uring-hidden", 1, setup_hidden, step_ring, NULL},
	{0},
};
