/* SPDX-License-Identifier: Apache-2.0 */
/* A ring that is in use all the time, by two processes with a ring each: writes to a file, reads it, waits,
 * checks. */
#include <fcntl.h>

#include "ring.h"

#define SIZE 16384
#define MANY 8

static void work(const char *name, unsigned flags)
{
	static char out[MANY][SIZE], in[MANY][SIZE];
	struct ring r;
	int file = MUST(open(test_path(name), O_RDWR | O_CREAT, 0600));
	uint64_t round = 0;

	ring_new(&r, MANY, flags);
	do {
		round++;
		for (int way = 0; way < 2; way++) {
			for (unsigned i = 0; i < MANY; i++) {
				struct io_uring_sqe *s = ring_sqe(&r);

				if (!way)
					test_fill(out[i], SIZE, round * MANY + i);
				s->opcode = way ? IORING_OP_READ : IORING_OP_WRITE;
				s->fd = file;
				s->addr = (uintptr_t)(way ? in[i] : out[i]);
				s->len = SIZE;
				s->off = i * SIZE;
				s->user_data = i;
				/* One after the other, some by a thread of the kernel's. */
				s->flags = (i < MANY - 1 ? IOSQE_IO_LINK : 0) | (i % 3 ? 0 : IOSQE_ASYNC);
			}
			ring_publish(&r);
			ring_enter(&r, MANY, MANY);
			for (unsigned i = 0; i < MANY; i++)
				ring_expect(&r, i, SIZE);
		}
		for (unsigned i = 0; i < MANY; i++)
			test_check_fill(in[i], SIZE, round * MANY + i, "what was read");
	} while (test_wait_ms(1));
}

int main(int argc, char **argv)
{
	pid_t child;

	test_init(argc, argv);
	child = test_fork();
	if (!child) {
		work("child", IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN);
		_exit(3);
	}
	test_ready();
	work("parent", 0);
	test_reap(child, 3);
	test_pass();
}
