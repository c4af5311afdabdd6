/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Asynchronous I/O (io_setup) without libaio. */
#include <linux/aio_abi.h>
#include <sys/syscall.h>
#include <time.h>

#include "zdtm.h"

struct aio_header {
	uint32_t id, nr, head, tail, magic, compat, incompat, length;
};

static inline volatile struct aio_header *aio_header(aio_context_t c)
{
	return (void *)c;
}

static inline aio_context_t aio_new(unsigned requests)
{
	aio_context_t c = 0;

	if (syscall(SYS_io_setup, requests, &c) < 0) {
		if (errno == ENOSYS)
			test_skip("no asynchronous I/O: %s", strerror(errno));
		test_fail("io_setup");
	}
	CHECK_EQ(aio_header(c)->magic, 0xa10a10a1);
	return c;
}

/* Returns false if the ring is full. */
static inline bool aio_try(aio_context_t c, struct iocb *r)
{
	long n = syscall(SYS_io_submit, c, 1L, &r);

	CHECK(n == 1 || errno == EAGAIN, "io_submit");
	return n == 1;
}

static inline void aio_read(aio_context_t c, int fd, void *p, size_t size, uint64_t data)
{
	struct iocb r = {.aio_data = data,
			 .aio_lio_opcode = IOCB_CMD_PREAD,
			 .aio_fildes = (uint32_t)fd,
			 .aio_buf = (uintptr_t)p,
			 .aio_nbytes = size};

	CHECK(aio_try(c, &r), "the ring is full");
}

/* The next event, which must come within some seconds. */
static inline struct io_event aio_event(aio_context_t c)
{
	struct timespec limit = {.tv_sec = 20};
	struct io_event v;
	long n;

	do
		n = syscall(SYS_io_getevents, c, 1L, 1L, &v, &limit);
	while (n < 0 && errno == EINTR);
	CHECK(n == 1, "no event (%ld)", n);
	return v;
}

static inline void aio_expect(aio_context_t c, uint64_t data, long long result)
{
	struct io_event v = aio_event(c);

	CHECK_EQ(v.data, data);
	CHECK_EQ(v.res, result);
}

static inline void aio_expect_none(aio_context_t c)
{
	struct timespec now = {0};
	struct io_event v;

	CHECK_EQ(syscall(SYS_io_getevents, c, 0L, 1L, &v, &now), 0);
}
