/* SPDX-License-Identifier: Apache-2.0 */
/* The other side has no huge pages left: said before the first round. Transparent ones that tracking has
 * split by then are huge again. */
#include <sys/mman.h>

#include "memory.h"

#define HUGE (2UL << 20)

int main(int argc, char **argv)
{
	struct mem_use before;
	char *p, *thp;

	test_init(argc, argv);
	p = mmap(NULL, 4 * HUGE, PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB | (21 << 26), -1, 0);
	if (p == MAP_FAILED)
		test_skip("no huge pages: %s", strerror(errno));
	test_fill(p, 4 * HUGE, 1);
	thp = mem_alone(16 * HUGE);
	MUST(madvise(thp, 16 * HUGE, MADV_HUGEPAGE));
	test_fill(thp, 16 * HUGE, 2);
	before = mem_use(thp, 16 * HUGE);
	test_ready();
	while (test_wait_ms(1))
		for (int i = 0; i < 16; i++)
			thp[i * HUGE]++;
	mem_check_near(before.anon_huge, mem_use(thp, 16 * HUGE).anon_huge, 0, 0, "transparent huge pages");
	test_check_fill(p, 4 * HUGE, 1, "huge pages");
	test_pass();
}
