/* SPDX-License-Identifier: Apache-2.0 */
#include "ring.h"

int main(int argc, char **argv)
{
	struct ring r;
	int p[2];
	char c;

	test_init(argc, argv);
	MUST(pipe(p));
	ring_new(&r, 4, 0);
	struct io_uring_sqe *s = ring_sqe(&r);

	s->opcode = IORING_OP_READ;
	s->fd = p[0];
	s->addr = (uintptr_t)&c;
	s->len = 1;
	s->user_data = 5;
	ring_publish(&r);
	ring_enter(&r, 1, 0);
	test_ready();
	test_wait();
	CHECK_EQ(write(p[1], "z", 1), 1);
	ring_expect(&r, 5, 1);
	CHECK_EQ(c, 'z');
	test_pass();
}
