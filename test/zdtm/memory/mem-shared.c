/* SPDX-License-Identifier: Apache-2.0 */
/* Shared anonymous memory between parent and children, at one address and at two, partly unmapped. */
#include <sys/mman.h>

#include "zdtm.h"

#define SIZE (1 << 20)

static volatile int *turn;

static void wait_turn(int n)
{
	while (turn[0] < n)
		test_sleep_ms(1);
}

int main(int argc, char **argv)
{
	char *a, *b;
	pid_t child[2];

	test_init(argc, argv);
	turn = test_shared_flags(1);
	a = test_map(SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS);
	b = test_map(SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS);
	test_fill(a, SIZE, 1);
	test_fill(b, SIZE / 2, 2);
	child[0] = test_fork();
	if (!child[0]) {
		MUST(munmap(a, SIZE / 2));
		b = MUST(mremap(b, SIZE, SIZE, MREMAP_MAYMOVE | MREMAP_FIXED,
				(char *)test_map(SIZE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS)));
		test_wait();
		wait_turn(1);
		test_check_fill(a + SIZE / 2, SIZE / 2, 11, "what the parent wrote to a");
		test_check_fill(b, SIZE, 12, "what the parent wrote to b");
		test_fill(b + SIZE / 2, SIZE / 2, 13);
		turn[0] = 2;
		_exit(1);
	}
	child[1] = test_fork();
	if (!child[1]) {
		MUST(mprotect(a, SIZE, PROT_READ));
		MUST(munmap(b, SIZE));
		test_wait();
		wait_turn(2);
		test_check_fill(a, SIZE / 2, 10, "what the parent wrote to a");
		_exit(2);
	}
	test_ready();
	test_wait();
	test_check_fill(a, SIZE, 1, "a");
	test_check_fill(b, SIZE / 2, 2, "b");
	for (int i = SIZE / 2; i < SIZE; i += 4096)
		CHECK_EQ(b[i], 0);
	test_fill(a, SIZE / 2, 10);
	test_fill(a + SIZE / 2, SIZE / 2, 11);
	test_fill(b, SIZE, 12);
	turn[0] = 1;
	wait_turn(2);
	test_check_fill(b + SIZE / 2, SIZE / 2, 13, "what the child wrote to b");
	test_reap(child[0], 1);
	test_reap(child[1], 2);
	test_pass();
}
