/* SPDX-License-Identifier: Apache-2.0 */
/* Idle rings of several kinds, with completions that nobody has read and requests that are not submitted yet.
 */
#include "ring.h"

#define SKIP_SUCCESS (1u << 6) /* IOSQE_CQE_SKIP_SUCCESS */

static const unsigned kinds[] = {
	0,
	RING_NO_SQARRAY | IORING_SETUP_SUBMIT_ALL,
	IORING_SETUP_CQE32 | IORING_SETUP_SQE128,
	IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG,
	IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | RING_NO_SQARRAY,
};
#define KINDS (sizeof(kinds) / sizeof(kinds[0]))

/* More requests than completions. */
static void use_silently(struct ring *r, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		ring_sqe(r)->flags = SKIP_SUCCESS;
		ring_publish(r);
		ring_enter(r, 1, 0);
	}
	CHECK_EQ(ring_ready(r), 0);
}

/* More completions than requests. */
static void use_by_message(struct ring *from, struct ring *to, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		struct io_uring_sqe *s = ring_sqe(from);

		s->opcode = IORING_OP_MSG_RING;
		s->fd = to->fd;
		s->len = 11;
		s->off = 500 + i;
		ring_publish(from);
		ring_enter(from, 1, 1);
		ring_expect(from, 0, 0);
		ring_expect(to, 500 + i, 11);
	}
}

int main(int argc, char **argv)
{
	struct ring r[KINDS], unused, silent, told;
	unsigned seen[KINDS];
	int twin;

	test_init(argc, argv);
	for (unsigned i = 0; i < KINDS; i++) {
		ring_new(&r[i], 8, kinds[i]);
		r[i].reversed = i == 0;
		ring_turn(&r[i], 3 + i);
		/* Not at the beginning of the ring, so that the ones unread go round its end. */
		ring_nops(&r[i], 5, 100);
		for (unsigned k = 0; k < 5; k++)
			ring_expect(&r[i], 100 + k, 0);
		ring_nops(&r[i], 8, 200);
		ring_nops(&r[i], 4, 208);
		CHECK_EQ(ring_ready(&r[i]), 12);
		ring_sqe(&r[i])->user_data = 300; /* published, */
		ring_publish(&r[i]);
		ring_sqe(&r[i])->user_data = 301; /* and not even that */
		seen[i] = *ring_word(&r[i], r[i].p.cq_off.tail);
	}
	ring_new(&unused, 4, 0);
	ring_new(&silent, 4, 0);
	use_silently(&silent, 41);
	ring_new(&told, 4, 0);
	use_by_message(&r[3], &told, 0);
	ring_turn(&silent, 1);
	ring_turn(&told, 1);
	use_by_message(&silent, &told, 33);
	twin = MUST(dup(r[1].fd));
	test_ready();
	test_wait();
	for (unsigned i = 0; i < KINDS; i++) {
		CHECK_EQ(*ring_word(&r[i], r[i].p.cq_off.tail), seen[i]);
		CHECK_EQ(ring_ready(&r[i]), 12);
		ring_publish(&r[i]);
		ring_enter(&r[i], 2, 0); /* 14 of 16 */
		for (unsigned k = 0; k < 12; k++)
			ring_expect(&r[i], 200 + k, 0);
		ring_expect(&r[i], 300, 0);
		ring_expect(&r[i], 301, 0);
		CHECK_EQ(ring_ready(&r[i]), 0);
		ring_turn(&r[i], 5);
	}
	r[1].fd = twin;
	ring_turn(&r[1], 1);
	ring_turn(&unused, 2);
	use_silently(&silent, 5);
	ring_turn(&silent, 3);
	ring_turn(&told, 3);
	use_by_message(&silent, &told, 3);
	CHECK_EQ(*ring_word(&told, told.p.cq_off.overflow), 0);
	test_pass();
}
