/* SPDX-License-Identifier: Apache-2.0 */
#include "ring.h"

int main(int argc, char **argv)
{
	struct __kernel_timespec t = {.tv_sec = 1000};
	struct ring r;

	test_init(argc, argv);
	ring_new(&r, 4, 0);
	struct io_uring_sqe *s = ring_sqe(&r);

	s->opcode = IORING_OP_TIMEOUT;
	s->addr = (uintptr_t)&t;
	s->len = 1;
	s->user_data = 6;
	ring_publish(&r);
	ring_enter(&r, 1, 0);
	ring_nops(&r, 2, 8); /* as many completions as requests */
	test_ready();
	test_wait();
	ring_expect(&r, 8, 0);
	ring_expect(&r, 9, 0);
	CHECK_EQ(ring_ready(&r), 0);
	s = ring_sqe(&r);
	s->opcode = IORING_OP_TIMEOUT_REMOVE;
	s->addr = 6;
	s->user_data = 7;
	ring_publish(&r);
	ring_enter(&r, 1, 2);
	CHECK_EQ(ring_ready(&r), 2);
	test_pass();
}
