/* SPDX-License-Identifier: Apache-2.0 */
/* Children come and go while the tree is copied; those alive at the end have their own memory. */
#include <sys/mman.h>
#include <sys/wait.h>

#include "zdtm.h"

#define CHILDREN 6
#define SIZE     (256 << 10)

static void child(char *p, int seed, volatile int *leave)
{
	int round = 0;

	test_fill(p, SIZE, seed);
	while (test_wait_ms(2) && !*leave) {
		test_check_fill(p, SIZE, seed + 1000 * round, "a child's memory");
		round++;
		test_fill(p, SIZE, seed + 1000 * round);
	}
	test_check_fill(p, SIZE, seed + 1000 * round, "a child's memory at its end");
	_exit(seed % 100);
}

int main(int argc, char **argv)
{
	volatile int *leave;
	pid_t pid[CHILDREN] = {0};
	int seed[CHILDREN], n = 0;
	char *p;

	test_init(argc, argv);
	leave = test_shared_flags(CHILDREN);
	p = test_map(SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS);
	test_fill(p, SIZE, 1);
	test_ready();
	do {
		int i = n % CHILDREN;

		if (pid[i]) {
			leave[i] = 1;
			test_reap(pid[i], seed[i] % 100);
			leave[i] = 0;
		}
		seed[i] = ++n;
		pid[i] = test_fork();
		if (!pid[i])
			child(p, seed[i], &leave[i]);
	} while (test_wait_ms(20));
	for (int i = 0; i < CHILDREN; i++)
		if (pid[i])
			test_reap(pid[i], seed[i] % 100);
	test_check_fill(p, SIZE, 1, "the parent's memory");
	CHECK(waitpid(-1, NULL, WNOHANG) == -1 && errno == ECHILD, "a child too many");
	test_pass();
}
