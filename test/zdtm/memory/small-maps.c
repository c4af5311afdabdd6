/* SPDX-License-Identifier: Apache-2.0 */
/* Small pieces of one large mapping are mapped anew again and again, here and there and across the edges of
 * earlier ones; pages are filled and given back. For a while each piece is a mapping of its own to who looks,
 * then one with its neighbours again. */
#include <stdlib.h>
#include <sys/mman.h>

#include "zdtm.h"

#define PAGES 2048UL
#define PIECE 16UL
#define SIZE  4096UL

static char *mem;
static uint64_t value[PAGES]; /* the first word of each page; 0: empty */

static uint64_t *word(size_t i)
{
	return (uint64_t *)(mem + i * SIZE);
}

static void map_anew(size_t i)
{
	CHECK(mmap(word(i), PIECE * SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1,
		   0) != MAP_FAILED,
	      "map a piece anew");
	memset(&value[i], 0, PIECE * sizeof(value[0]));
}

static void give_back(size_t i)
{
	CHECK_EQ(madvise(word(i), PIECE * SIZE, MADV_DONTNEED), 0);
	memset(&value[i], 0, PIECE * sizeof(value[0]));
}

static void fill(size_t i, uint64_t v)
{
	for (size_t k = i; k < i + PIECE; k++)
		*word(k) = value[k] = v + k;
}

static void step(uint64_t n)
{
	size_t i = (size_t)random() % (PAGES - PIECE);

	CHECK_EQ(*word(i), value[i]);
	switch (n % 4) {
	case 0:
		map_anew(i);
		break;
	case 1:
		give_back(i);
		break;
	default:
		fill(i, n);
	}
}

int main(int argc, char **argv)
{
	uint64_t n = 0;

	test_init(argc, argv);
	mem = test_map(PAGES * SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS);
	CHECK_EQ(madvise(mem, PAGES * SIZE, MADV_NOHUGEPAGE), 0);
	test_ready();
	do
		for (int k = 0; k < 8; k++)
			step(n++);
	while (test_wait_ms(1));
	for (size_t i = 0; i < PAGES; i++)
		CHECK_EQ(*word(i), value[i]);
	test_pass();
}
