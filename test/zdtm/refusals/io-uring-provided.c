/* SPDX-License-Identifier: Apache-2.0 */
#include "ring.h"

int main(int argc, char **argv)
{
	static char buffers[4][64];
	struct ring r;

	test_init(argc, argv);
	ring_new(&r, 4, 0);
	struct io_uring_sqe *s = ring_sqe(&r);

	s->opcode = IORING_OP_PROVIDE_BUFFERS;
	s->fd = 4;
	s->addr = (uintptr_t)buffers;
	s->len = 64;
	s->buf_group = 9;
	s->user_data = 1;
	ring_publish(&r);
	ring_enter(&r, 1, 1);
	ring_expect(&r, 1, 0);
	test_ready();
	test_wait();
	ring_turn(&r, 1);
	test_pass();
}
