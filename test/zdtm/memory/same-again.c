/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writes what was there already, writes many equal pages, moves content from page to page, gives pages back,
 * and maps something else where equal pages were: what a sender leaves out must be there all the same.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "zdtm.h"

#define PAGES 3072UL
#define KINDS 7
#define WORDS 512
#define ROOM  (PAGES * 4096)

static uint64_t *mem;
static uint64_t value[PAGES]; /* of which each page is full; 0: never written, or given back */

/* Not all of the page at once: a reader may see it half done. */
static void fill(size_t i, uint64_t v)
{
	for (size_t k = 0; k < WORDS; k++)
		mem[i * WORDS + k] = v * 0x9e3779b97f4a7c15ull + k / 64;
	value[i] = v;
}

static void check(size_t i)
{
	for (size_t k = 0; k < WORDS; k++)
		CHECK_EQ(mem[i * WORDS + k], value[i] ? value[i] * 0x9e3779b97f4a7c15ull + k / 64 : 0);
}

/* Another mapping at the same place: what was there is gone. */
static void map_anew(size_t i, size_t n)
{
	CHECK(mmap(mem + i * WORDS, n * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED,
		   -1, 0) != MAP_FAILED,
	      "map private memory");
	memset(&value[i], 0, n * sizeof(value[0]));
}

static void step(uint64_t n)
{
	size_t i = (size_t)random() % PAGES, j = (size_t)random() % PAGES;

	check(i);
	switch (n % 16) {
	case 0: /* what is there, again */
	case 1:
	case 2:
	case 3:
		if (value[i])
			fill(i, value[i]);
		break;
	case 4: /* shift */
	case 5:
		if (value[j])
			fill(i, value[j]);
		break;
	case 6:
		CHECK_EQ(madvise(mem + i * WORDS, 4096, MADV_DONTNEED), 0);
		value[i] = 0;
		break;
	case 7:
		if (n % 512 == 7) {
			i = i < PAGES - 16 ? i : PAGES - 16;
			map_anew(i, 16);
			for (size_t k = 0; k < 16; k++) /* the content of old, in new memory */
				fill(i + k, 1 + k % KINDS);
		}
		break;
	default:
		fill(i, 1 + (size_t)random() % KINDS);
	}
}

int main(int argc, char **argv)
{
	test_init(argc, argv);
	mem = test_map(ROOM, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS);
	for (size_t i = 0; i < PAGES; i++)
		fill(i, 1 + i % KINDS);
	test_ready();
	for (uint64_t n = 0; test_waiting(); n++)
		step(n);
	for (size_t i = 0; i < PAGES; i++)
		check(i);
	test_pass();
}
