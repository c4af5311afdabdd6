/* SPDX-License-Identifier: Apache-2.0 */
/* Children that are forked while the tree is copied share memory with their parent as the others do. */
#include <sys/mman.h>

#include "pss.h"

#define MOST 40
#define SIZE (16L << 20)

static void child(const char *p, const volatile int *go, int who)
{
	while (!*go)
		test_sleep_ms(2);
	for (long i = 0; i < SIZE; i += 4096)
		test_check_fill(p + i, 4096, i == who * 4096L ? 1 : i, "a child's memory");
	_exit(0);
}

int main(int argc, char **argv)
{
	pid_t pids[MOST];
	volatile int *go;
	uint64_t before;
	int n = 0;
	char *p;

	test_init(argc, argv);
	go = test_shared_flags(1);
	p = test_map(SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS);
	for (long i = 0; i < SIZE; i += 4096)
		test_fill(p + i, 4096, i);
	test_ready();
	do {
		if (n == MOST)
			continue;
		/* Only this child has this version. */
		test_fill(p + n * 4096, 4096, 1);
		pids[n] = test_fork();
		if (!pids[n])
			child(p, go, n);
		test_fill(p + n * 4096, 4096, n * 4096);
		n++;
	} while (test_wait_ms(5));
	/* All of it, what they need to live, and once more to say it again. */
	before = SIZE + (n + 1) * (160L << 10);
	CHECK(pss_of(pids, n) <= before, "%d processes use %llu KiB together, %llu KiB at most were expected",
	      n + 1, (unsigned long long)pss_of(pids, n) / 1024, (unsigned long long)before / 1024);
	*go = 1;
	for (int i = 0; i < n; i++)
		test_reap(pids[i], 0);
	for (long i = 0; i < SIZE; i += 4096)
		test_check_fill(p + i, 4096, i, "the parent's memory");
	test_pass();
}
