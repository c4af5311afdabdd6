/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Big memory under a steady random writer.  Each page holds its number and a version; the versions are also
 * kept in a table, which is memory like any other.  A page lost or stale in any round shows.
 */
#include <sys/mman.h>

#include "zdtm.h"

#define PAGES (192UL << 8) /* 192 MiB */

static void check_page(const uint64_t *page, size_t i, uint64_t version)
{
	errno = 0;
	if (page[0] != i || page[1] != version || page[511] != (i ^ version))
		test_fail("page %zu at %p holds %llu, %llu, %llu instead of version %llu", i,
			  (const void *)page, (unsigned long long)page[0], (unsigned long long)page[1],
			  (unsigned long long)page[511], (unsigned long long)version);
}

static void write_page(uint64_t *page, size_t i, uint64_t version)
{
	page[0] = i;
	page[1] = version;
	page[511] = i ^ version;
}

int main(int argc, char **argv)
{
	uint64_t *mem, *version, state = 88172645463325252ULL;

	test_init(argc, argv);
	mem = test_map(PAGES * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS);
	version = test_map(PAGES * 8, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS);
	for (size_t i = 0; i < PAGES; i++)
		write_page(mem + i * 512, i, 0);
	test_ready();
	while (test_wait_ms(1)) {
		for (int n = 0; n < 50; n++) {
			size_t i = test_random(&state) % PAGES;

			check_page(mem + i * 512, i, version[i]);
			write_page(mem + i * 512, i, ++version[i]);
		}
	}
	for (size_t i = 0; i < PAGES; i++)
		check_page(mem + i * 512, i, version[i]);
	test_pass();
}
