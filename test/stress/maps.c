/* SPDX-License-Identifier: Apache-2.0 */
/* Mappings that come, go, move and change. */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "ways.h"

#define PATCH (64 * PAGE)
#define SLOTS 8

/* Where a writer of maps works: one of SLOTS places, a patch or two long. */
static struct patch {
	char *base, *p;
	size_t len;
} patch[2];
static int memfd;

static char *slot(const struct patch *m)
{
	return m->base + rnd() % SLOTS * 2 * PATCH;
}

static void start_again(struct patch *m)
{
	m->len = PATCH;
	m->p = (char *)MUST(
		mmap(m->base, PATCH, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0));
}

static void setup_map(void)
{
	for (unsigned i = 0; i < 2; i++) {
		patch[i].base = area_at(i);
		MUST(mmap(patch[i].base, 2 * SLOTS * PATCH, PROT_NONE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0));
		start_again(&patch[i]);
	}
}

static void move(struct patch *m, int flags)
{
	char *to = slot(m);

	if (to == m->p)
		return;
	char *got = mremap(m->p, m->len, m->len, MREMAP_MAYMOVE | MREMAP_FIXED | flags, to);

	/* While one half is tracked already and the other not yet, the kernel refuses. */
	if (got == MAP_FAILED)
		start_again(m);
	else
		m->p = got;
}

static void grow_or_shrink(struct patch *m)
{
	size_t other = 3 * PATCH - m->len;

	if (m->len == PATCH)
		munmap(m->p + PATCH, PATCH);
	if (mremap(m->p, m->len, other, 0) == MAP_FAILED)
		start_again(m);
	else
		m->len = other;
}

static void step_map(unsigned w)
{
	struct patch *m = &patch[w];

	for (int i = 0; i < 8; i++)
		*(volatile uint32_t *)next_page(m->p, m->len) += 1;
	switch (rnd() % 8) {
	case 0:
		move(m, 0);
		break;
	case 1:
		move(m, MREMAP_DONTUNMAP);
		break;
	case 2:
		grow_or_shrink(m);
		break;
	case 3:
		munmap(m->p, m->len);
		start_again(m);
		break;
	default:
		break;
	}
	pause_us(100);
}

#define LARGE  (2ul << 20)
#define LARGES 4

static void fill_large(unsigned w, char *p)
{
	MUST(mmap(p, LARGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0));
	MUST(madvise(p, LARGE, w ? MADV_HUGEPAGE : MADV_NOHUGEPAGE));
	for (size_t i = 0; i < LARGE; i += PAGE)
		*(volatile uint32_t *)(p + i) = rnd();
}

static void setup_large(void)
{
	for (unsigned w = 0; w < 2; w++)
		for (unsigned i = 0; i < LARGES; i++)
			fill_large(w, area_at(w) + i * LARGE);
}

static void move_large(unsigned w, char *from, char *to)
{
	/* While one half is tracked already and the other not yet, the kernel refuses. */
	if (mremap(from, LARGE, LARGE, MREMAP_MAYMOVE | MREMAP_FIXED, to) == MAP_FAILED)
		fill_large(w, to);
}

/* Two change places, and nobody writes; or one takes the place of another. */
static void step_large(unsigned w)
{
	char *p = area_at(w), *a = p + rnd() % LARGES * LARGE, *b = p + rnd() % LARGES * LARGE,
	     *spare = p + LARGES * LARGE;

	*(volatile uint32_t *)next_page(p, LARGES * LARGE) += 1;
	if (a != b && rnd() % 8 == 0) {
		move_large(w, a, spare);
		move_large(w, b, a);
		if (rnd() % 4)
			move_large(w, spare, b);
		else
			fill_large(w, b);
		munmap(spare, LARGE);
	}
	pause_us(1000);
}

static void setup_fixed(void)
{
	memfd = content_memfd("fixed", AREA_SIZE);
	for (unsigned i = 0; i < 2; i++)
		memset(area(i, MAP_PRIVATE, -1, AREA_SIZE), 1, AREA_SIZE);
}

/* A mapping of any kind over a part of the area, or all of it; then stores. */
static void step_fixed(unsigned w)
{
	size_t n = rnd() % 4 ? (1 + rnd() % 32) * PAGE : AREA_SIZE;
	size_t at = rnd() % (AREA_PAGES - n / PAGE + 1) * PAGE;
	unsigned kind = rnd() % 4;
	int flags = kind == 0 ? MAP_SHARED : kind == 1 ? MAP_PRIVATE : MAP_PRIVATE | MAP_ANONYMOUS;

	MUST(mmap(area_at(w) + at, n, PROT_READ | PROT_WRITE, flags | MAP_FIXED, kind > 1 ? -1 : memfd,
		  kind > 1 ? 0 : (off_t)(at / 2 / PAGE * PAGE)));
	for (int i = 0; i < 8; i++)
		*(volatile uint32_t *)(area_at(w) + at + rnd() % (n / PAGE) * PAGE) += 1;
	pause_us(300);
}

static void setup_mprotect(void)
{
	for (unsigned i = 0; i < 2; i++)
		memset(area(i, MAP_PRIVATE, -1, AREA_SIZE), 1, AREA_SIZE);
}

static void step_mprotect(unsigned w)
{
	size_t n = (1 + rnd() % 32) * PAGE, at = rnd() % (AREA_PAGES - 32) * PAGE;
	char *p = area_at(w);

	MUST(mprotect(p + at, n, rnd() % 2 ? PROT_NONE : PROT_READ));
	for (int i = 0; i < 4; i++) {
		char *page = next_page(p, AREA_SIZE);

		if (page < p + at || page >= p + at + n)
			*(volatile uint32_t *)page += 1;
	}
	MUST(mprotect(p + at, n, PROT_READ | PROT_WRITE));
	*(volatile uint32_t *)(p + at + rnd() % (n / PAGE) * PAGE) += 1;
	pause_us(100);
}

const struct way ways_maps[] = {
	{"map", 2, setup_map, step_map, NULL},
	{"map-large", 2, setup_large, step_large, NULL},
	{"map-fixed", 2, setup_fixed, step_fixed, NULL},
	{"mprotect", 2, setup_mprotect, step_mprotect, NULL},
	{0},
};
