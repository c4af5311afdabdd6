/* SPDX-License-Identifier: Apache-2.0 */
/* Shared memory of two processes: much that is left alone, and a little that one of them writes all the time
 * and the other looks at: 32 MiB and 4 MiB. */
#include <sys/mman.h>

#include "memory.h"

#define COLD (32UL << 8)
#define HOT  (4UL << 8)

static uint64_t *cold;
static volatile uint64_t *hot;

/* Pages before the one at work are of the same lap or a later one. */
static void watch(void)
{
	while (test_waiting()) {
		uint64_t last = 0;

		for (size_t i = HOT; i-- > 0;) {
			uint64_t v = hot[i * 512 + MEM_LAP_WORD];

			CHECK(v >= last, "page %zu is of lap %llu, one behind it of lap %llu", i,
			      (unsigned long long)v, (unsigned long long)last);
			last = v;
		}
		test_sleep_ms(20);
	}
	test_check_fill(cold, COLD * 4096, 5, "what was left alone, in the child");
	_exit(0);
}

int main(int argc, char **argv)
{
	pid_t child;

	test_init(argc, argv);
	cold = test_map(COLD * 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS);
	test_fill(cold, COLD * 4096, 5);
	hot = test_map(HOT * 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS);
	test_fill((void *)hot, HOT * 4096, 6); /* so that it cannot be packed */
	for (size_t i = 0; i < HOT; i++)
		hot[i * 512 + MEM_LAP_WORD] = 0;
	child = test_fork();
	if (!child)
		watch();
	test_ready();
	mem_rewrite(hot, HOT);
	test_check_fill(cold, COLD * 4096, 5, "what was left alone");
	test_reap(child, 0);
	test_pass();
}
