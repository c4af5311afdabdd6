/* SPDX-License-Identifier: Apache-2.0 */
/* Contexts of asynchronous I/O: rings with unread events that go past the end, one that is full, one that may
 * not be written. */
#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/mman.h>

#include "aio.h"

#define ROUND 120 /* of the 127 events that the smallest ring can have */

static char buf[64];

static bool try_read(aio_context_t c, int fd, uint64_t data, size_t size)
{
	struct iocb r = {.aio_data = data,
			 .aio_lio_opcode = IOCB_CMD_PREAD,
			 .aio_fildes = (uint32_t)fd,
			 .aio_buf = (uintptr_t)buf,
			 .aio_nbytes = size};

	return aio_try(c, &r);
}

static void write_and_tell(aio_context_t c, int fd, const char *text, uint64_t data, int event)
{
	struct iocb r = {.aio_data = data,
			 .aio_lio_opcode = IOCB_CMD_PWRITE,
			 .aio_fildes = (uint32_t)fd,
			 .aio_buf = (uintptr_t)text,
			 .aio_nbytes = strlen(text),
			 .aio_flags = IOCB_FLAG_RESFD,
			 .aio_resfd = (uint32_t)event};

	CHECK(aio_try(c, &r), "the ring is full");
}

static size_t ring_size(aio_context_t c)
{
	return (32 + aio_header(c)->nr * 32 + 4095) & ~4095ul;
}

int main(int argc, char **argv)
{
	aio_context_t turned, full, guarded, empty, gone;
	struct aio_header turned_was, full_was;
	uint64_t n, event;
	int fd, events;

	test_init(argc, argv);
	fd = MUST(open(test_path("file"), O_RDWR | O_CREAT, 0600));
	CHECK_EQ(write(fd, argv[0], 10), 10);
	events = MUST(eventfd(0, EFD_NONBLOCK));
	turned = aio_new(3);
	gone = aio_new(3);
	full = aio_new(500);
	guarded = aio_new(3);
	empty = aio_new(200);
	MUST(syscall(SYS_io_destroy, gone));
	for (unsigned i = 0; i < aio_header(turned)->nr - 7; i++) {
		aio_read(turned, fd, buf, 1, i);
		aio_expect(turned, i, 1);
	}
	for (unsigned i = 0; i < 20; i++) /* past the end, and some of them read */
		aio_read(turned, fd, buf, i % 10, 1000 + i);
	aio_expect(turned, 1000, 0);
	CHECK(aio_header(turned)->tail < aio_header(turned)->head, "the ring was not turned");
	for (n = 0; try_read(full, fd, n, n % 7); n++)
		;
	CHECK(n > 500, "the ring is full with %llu events", (unsigned long long)n);
	aio_read(guarded, fd, buf, 5, 5);
	MUST(mprotect((void *)guarded, ring_size(guarded), PROT_READ));
	turned_was = *aio_header(turned);
	full_was = *aio_header(full);
	test_ready();
	test_wait();
	CHECK_EQ(aio_header(turned)->nr, turned_was.nr);
	CHECK_EQ(aio_header(turned)->head, turned_was.head);
	CHECK_EQ(aio_header(turned)->tail, turned_was.tail);
	CHECK_EQ(aio_header(full)->nr, full_was.nr);
	for (unsigned i = 1; i < 20; i++)
		aio_expect(turned, 1000 + i, i % 10);
	aio_expect_none(turned);
	CHECK(!try_read(full, fd, 0, 1), "a full ring takes a request");
	for (uint64_t i = 0; i < n; i++)
		aio_expect(full, i, (long long)(i % 7));
	aio_expect_none(full);
	aio_expect(guarded, 5, 5);
	aio_expect_none(empty);
	/* They work on. */
	for (unsigned i = 0; i < 3 * ROUND; i++) {
		aio_read(turned, fd, buf, i % 10, i);
		aio_expect(turned, i, i % 10);
		aio_read(full, fd, buf, i % 10, i);
		aio_read(guarded, fd, buf, i % 9, i);
		aio_expect(guarded, i, i % 9);
	}
	for (unsigned i = 0; i < 3 * ROUND; i++)
		aio_expect(full, i, i % 10);
	write_and_tell(empty, fd, "moved", 9, events);
	aio_expect(empty, 9, 5);
	CHECK_EQ(read(events, &event, sizeof(event)), sizeof(event));
	CHECK_EQ(event, 1);
	CHECK_EQ(pread(fd, buf, 5, 0), 5);
	CHECK(!memcmp(buf, "moved", 5), "what was written");
	MUST(syscall(SYS_io_destroy, turned));
	CHECK(syscall(SYS_io_destroy, turned) < 0 && errno == EINVAL, "a context that is destroyed twice");
	MUST(syscall(SYS_io_destroy, full));
	MUST(syscall(SYS_io_destroy, guarded));
	MUST(syscall(SYS_io_destroy, empty));
	test_pass();
}
