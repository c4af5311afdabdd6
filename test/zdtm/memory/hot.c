/* SPDX-License-Identifier: Apache-2.0 */
/* Writes all of its memory, page after page, as fast as it can: no link keeps up with that. No page is like
 * another, so that none need not be sent for being a copy. */
#include <sys/mman.h>

#include "memory.h"

#define PAGES (24UL << 8) /* 24 MiB */

int main(int argc, char **argv)
{
	uint64_t *mem;

	test_init(argc, argv);
	mem = test_map(PAGES * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS);
	for (size_t i = 0; i < PAGES; i++)
		mem[i * 512 + MEM_LAP_WORD + 1] = i;
	test_ready();
	mem_rewrite(mem, PAGES);
	for (size_t i = 0; i < PAGES; i++)
		CHECK_EQ(mem[i * 512 + MEM_LAP_WORD + 1], i);
	test_pass();
}
