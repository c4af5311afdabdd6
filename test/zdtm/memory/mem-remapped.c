/* SPDX-License-Identifier: Apache-2.0 */
/* Mappings are made, removed, moved, grown and changed in protection while they are copied. */
#include <sys/mman.h>

#include "zdtm.h"

#define SLOTS 24

static struct slot {
	char *p;
	size_t pages;
	uint64_t seed;
	int prot;
} slots[SLOTS];
static uint64_t state = 1234567;

static unsigned any(unsigned n)
{
	return test_random(&state) % n;
}

static void check(struct slot *s)
{
	if (s->p && s->prot != PROT_NONE)
		for (size_t i = 0; i < s->pages; i++)
			test_check_fill(s->p + i * 4096, 4096, s->seed + i, "a mapping");
}

static void fill(struct slot *s, size_t from)
{
	for (size_t i = from; i < s->pages; i++)
		test_fill(s->p + i * 4096, 4096, s->seed + i);
}

static void step(struct slot *s)
{
	size_t pages;

	if (!s->p) {
		s->pages = 1 + any(40);
		s->prot = PROT_READ | PROT_WRITE;
		s->seed = test_random(&state);
		s->p = test_map(s->pages * 4096, s->prot,
				(any(4) ? MAP_PRIVATE : MAP_SHARED) | MAP_ANONYMOUS);
		fill(s, 0);
		return;
	}
	check(s);
	switch (any(5)) {
	case 0:
		MUST(munmap(s->p, s->pages * 4096));
		s->p = NULL;
		break;
	case 1: /* shrink */
		pages = 1 + any(s->pages);
		s->p = MUST(mremap(s->p, s->pages * 4096, pages * 4096, 0));
		s->pages = pages;
		break;
	case 2: /* move to a fresh place */
		s->p = MUST(mremap(s->p, s->pages * 4096, s->pages * 4096, MREMAP_MAYMOVE | MREMAP_FIXED,
				   test_map(s->pages * 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS)));
		break;
	case 3:
		s->prot = (int[]){PROT_NONE, PROT_READ, PROT_READ | PROT_WRITE}[any(3)];
		MUST(mprotect(s->p, s->pages * 4096, s->prot));
		break;
	default:
		if (s->prot & PROT_WRITE) {
			s->seed = test_random(&state);
			fill(s, 0);
		}
		break;
	}
}

int main(int argc, char **argv)
{
	test_init(argc, argv);
	for (int i = 0; i < SLOTS; i++)
		step(&slots[i]);
	test_ready();
	while (test_wait_ms(1))
		for (int n = 0; n < 6; n++)
			step(&slots[any(SLOTS)]);
	for (int i = 0; i < SLOTS; i++) {
		struct slot *s = &slots[i];

		if (s->p && s->prot == PROT_NONE) {
			s->prot = PROT_READ;
			MUST(mprotect(s->p, s->pages * 4096, s->prot));
		}
		check(s);
	}
	test_pass();
}
