/* SPDX-License-Identifier: Apache-2.0 */
/* Asynchronous I/O that goes on while the program is copied: what is read is what was written, and no event
 * is lost or comes twice. */
#include <fcntl.h>
#include <sys/mman.h>

#include "aio.h"

#define SLOTS 4
#define SIZE  16384

static aio_context_t context;
static int fd;
static struct slot {
	char *p;
	uint64_t turn;
	bool reads, busy;
} slots[SLOTS];

static uint64_t seed_of(unsigned i)
{
	return slots[i].turn * SLOTS + i;
}

/* Write what it holds, or read it back over zeros. */
static void start(unsigned i)
{
	struct slot *s = &slots[i];
	struct iocb r = {.aio_data = i + 100 * s->turn,
			 .aio_lio_opcode = s->reads ? IOCB_CMD_PREAD : IOCB_CMD_PWRITE,
			 .aio_fildes = (uint32_t)fd,
			 .aio_buf = (uintptr_t)s->p,
			 .aio_nbytes = SIZE,
			 .aio_offset = (int64_t)i * SIZE};

	if (s->reads)
		memset(s->p, 0, SIZE);
	else
		test_fill(s->p, SIZE, seed_of(i));
	CHECK(aio_try(context, &r), "the ring is full");
	s->busy = true;
}

static unsigned finish(void)
{
	struct io_event v = aio_event(context);
	unsigned i = v.data % 100;
	struct slot *s = &slots[i];

	CHECK(i < SLOTS && s->busy, "an event of a request that was not made: %llu",
	      (unsigned long long)v.data);
	CHECK_EQ(v.data / 100, s->turn);
	CHECK_EQ(v.res, SIZE);
	if (s->reads) {
		test_check_fill(s->p, SIZE, seed_of(i), "what was read");
		s->turn++;
	}
	s->reads = !s->reads;
	s->busy = false;
	return i;
}

int main(int argc, char **argv)
{
	test_init(argc, argv);
	fd = open(test_path("file"), O_RDWR | O_CREAT | O_DIRECT, 0600);
	if (fd < 0) /* a file system without it */
		fd = MUST(open(test_path("file"), O_RDWR | O_CREAT, 0600));
	context = aio_new(SLOTS);
	for (unsigned i = 0; i < SLOTS; i++) {
		slots[i].p = test_map(SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS);
		start(i);
	}
	test_ready();
	while (test_waiting())
		start(finish());
	for (unsigned i = 0; i < SLOTS; i++)
		finish();
	aio_expect_none(context);
	for (unsigned i = 0; i < SLOTS; i++)
		start(i);
	for (unsigned i = 0; i < SLOTS; i++)
		finish();
	test_pass();
}
