/* SPDX-License-Identifier: Apache-2.0 */
/* Much memory that is left alone, and a little that is written all the time: 64 MiB and 4 MiB. */
#include <sys/mman.h>

#include "memory.h"

#define COLD (64UL << 8)
#define HOT  (4UL << 8)

int main(int argc, char **argv)
{
	uint64_t *cold, *hot;

	test_init(argc, argv);
	cold = test_map(COLD * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS);
	test_fill(cold, COLD * 4096, 5);
	hot = test_map(HOT * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS);
	test_ready();
	mem_rewrite(hot, HOT);
	test_check_fill(cold, COLD * 4096, 5, "what was left alone");
	test_pass();
}
