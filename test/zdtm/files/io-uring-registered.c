/* SPDX-License-Identifier: Apache-2.0 */
/* Files, buffers, an eventfd and its own descriptor, registered with a ring. The buffers are written past the
 * page tables while the program is copied. */
#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/uio.h>

#include "ring.h"

#define SIZE  65536
#define SLOTS 6

static char *buffer[2];

static void read_into(struct ring *r, int index, uint64_t seed, int file)
{
	char *own = test_map(SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS);

	test_fill(own, SIZE, seed);
	ring_rw(r, IORING_OP_WRITE, 1, true, own, SIZE, 0, -1, seed);
	ring_expect(r, seed, SIZE);
	ring_rw(r, IORING_OP_READ_FIXED, file, true, buffer[index], SIZE, 0, index, seed + 1);
	ring_expect(r, seed + 1, SIZE);
	MUST(munmap(own, SIZE));
}

static void check(struct ring *r, int pipe_out, int event)
{
	char c = 0;
	uint64_t n = 0;

	ring_rw(r, IORING_OP_WRITE, 3, true, "x", 1, 0, -1, 40); /* the pipe */
	ring_expect(r, 40, 1);
	CHECK_EQ(read(pipe_out, &c, 1), 1);
	CHECK_EQ(c, 'x');
	ring_rw(r, IORING_OP_READ, 4, true, &c, 1, 0, -1, 41); /* nothing is registered there */
	ring_expect(r, 41, -EBADF);
	CHECK_EQ(read(event, &n, 8), 8);
	CHECK(n >= 2, "the eventfd was told of %llu completions", (unsigned long long)n);
}

int main(int argc, char **argv)
{
	struct ring r, single;
	struct iovec v[3] = {{0}};
	struct io_uring_rsrc_update index = {.offset = 3};
	int fds[SLOTS], file, again, event, p[2];
	uint64_t round = 1, none = 0;
	bool more;

	test_init(argc, argv);
	ring_new(&r, 8, 0);
	file = MUST(open(test_path("file"), O_RDWR | O_CREAT, 0600));
	again = MUST(open(test_path("file"), O_RDONLY));
	MUST(pipe(p));
	event = MUST(eventfd(0, EFD_NONBLOCK));
	for (int i = 0; i < 2; i++) {
		buffer[i] = test_map(SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS);
		v[i ? 2 : 0] = (struct iovec){buffer[i], SIZE};
	}
	for (int i = 0; i < SLOTS; i++)
		fds[i] = -1;
	fds[1] = file;
	fds[2] = again;
	fds[3] = p[1];
	MUST(ring_register(&r, IORING_REGISTER_FILES, fds, SLOTS));
	v[1] = v[2]; /* the second is buffer 1 */
	MUST(ring_register(&r, IORING_REGISTER_BUFFERS, v, 2));
	MUST(ring_register(&r, IORING_REGISTER_EVENTFD, &event, 1));
	index.data = r.fd;
	MUST(ring_register(&r, IORING_REGISTER_RING_FDS, &index, 1));
	ring_new(&single, 4, IORING_SETUP_SINGLE_ISSUER);
	MUST(ring_register(&single, IORING_REGISTER_FILES, fds, SLOTS));
	MUST(ring_register(&single, IORING_REGISTER_EVENTFD, &event, 1));
	ring_turn(&single, 2);
	check(&r, p[0], event);
	test_ready();
	do { /* at least once after each look at its pages, as it goes on until told */
		round += 2;
		read_into(&r, 0, round, 2);
		read_into(&r, 1, round + 1000000, 1);
		more = test_wait_ms(
			1); /* here it is moved, most often: then nothing has written over it yet */
		test_check_fill(buffer[0], SIZE, round, "buffer 0");
		test_check_fill(buffer[1], SIZE, round + 1000000, "buffer 1");
	} while (more);
	MUST(read(event, &none, 8));
	check(&r, p[0], event);
	ring_rw(&single, IORING_OP_WRITE, 3, true, "y", 1, 0, -1, 50);
	ring_expect(&single, 50, 1);
	CHECK_EQ(read(event, &none, 8), 8);
	CHECK_EQ(none, 1);
	CHECK_EQ(syscall(SYS_io_uring_enter, 3, 0, 0, IORING_ENTER_GETEVENTS | (1u << 4), NULL, 0), 0);
	CHECK(syscall(SYS_io_uring_enter, 4, 0, 0, IORING_ENTER_GETEVENTS | (1u << 4), NULL, 0) < 0,
	      "a descriptor is registered that was not");
	CHECK(ring_register(&r, IORING_REGISTER_EVENTFD, &event, 1) < 0 && errno == EBUSY, "no eventfd");
	test_pass();
}
