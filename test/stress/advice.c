/* SPDX-License-Identifier: Apache-2.0 */
/* madvise(2). */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#include "ways.h"

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif
#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102
#define MADV_GUARD_REMOVE  103
#endif
#define HUGE      (2ul << 20)
#define HUGE_AREA (4 * HUGE)

static void setup_small(void)
{
	memset(area(0, MAP_PRIVATE, -1, AREA_SIZE), 1, AREA_SIZE);
}

static void setup_huge(void)
{
	MUST(madvise(area(0, MAP_PRIVATE, -1, HUGE_AREA), HUGE_AREA, MADV_HUGEPAGE));
	memset(area_at(0), 1, HUGE_AREA);
}

static void setup_shared(void)
{
	memset(area(0, MAP_SHARED, content_memfd("removed", AREA_SIZE), AREA_SIZE), 1, AREA_SIZE);
}

static void store_some(size_t size)
{
	for (int i = 0; i < 4; i++)
		*(volatile uint32_t *)next_page(area_at(0), size) += 1;
}

static void advise_some(size_t unit, size_t size, size_t most, int advice)
{
	size_t n = 1 + rnd() % most;

	MUST(madvise(area_at(0) + rnd() % (size / unit - most + 1) * unit, n * unit, advice));
}

static void step_dontneed(unsigned w)
{
	(void)w;
	store_some(AREA_SIZE);
	advise_some(PAGE, AREA_SIZE, 8, MADV_DONTNEED);
	pause_us(100);
}

static void step_dontneed_huge(unsigned w)
{
	(void)w;
	store_some(HUGE_AREA);
	if (rnd() % 8 == 0)
		advise_some(HUGE, HUGE_AREA, 2, MADV_DONTNEED);
	pause_us(100);
}

static void setup_read_back(void)
{
	setup_small();
	MUST(madvise(area(1, MAP_PRIVATE, -1, HUGE_AREA), HUGE_AREA, MADV_HUGEPAGE));
	memset(area_at(1), 1, HUGE_AREA);
}

static void read_by_kernel(char *p)
{
	char c;
	struct iovec from = {p, 1}, to = {&c, 1};

	MUST(process_vm_readv(getpid(), &to, 1, &from, 1, 0));
}

/* Read by the program or by the kernel: the zero page is there, small or huge. */
static void step_read_back(unsigned w)
{
	size_t size = w ? HUGE_AREA : AREA_SIZE, n = w && rnd() % 4 == 0 ? HUGE : PAGE;
	char *p = area_at(w) + rnd() % (size / n) * n;

	*(volatile uint32_t *)next_page(area_at(w), size) += 1;
	if (w && rnd() % 16 == 0)
		scribble(area_at(w) + rnd() % (size / HUGE) * HUGE, HUGE);
	MUST(madvise(p, n, MADV_DONTNEED));
	if (rnd() % 2)
		(void)*(volatile char *)(p + rnd() % n);
	else
		read_by_kernel(p + rnd() % n);
	pause_us(w ? 1000 : 100);
}

static void step_free(unsigned w)
{
	(void)w;
	store_some(AREA_SIZE);
	advise_some(PAGE, AREA_SIZE, 8, MADV_FREE);
	if (rnd() % 8 == 0)
		madvise(area_at(0), AREA_SIZE, MADV_PAGEOUT); /* reclaims them */
	pause_us(100);
}

static void step_remove(unsigned w)
{
	(void)w;
	store_some(AREA_SIZE);
	advise_some(PAGE, AREA_SIZE, 8, MADV_REMOVE);
	pause_us(100);
}

static void step_collapse(unsigned w)
{
	(void)w;
	store_some(HUGE_AREA);
	/* Refused (EINVAL) where a page is write-protected, for lack of a huge page, or while pages are
	 * looked at. */
	madvise(area_at(0) + rnd() % 4 * HUGE, HUGE, MADV_COLLAPSE);
	pause_us(200);
}

static void setup_collapse(void)
{
	area(0, MAP_PRIVATE, -1, HUGE_AREA);
	MUST(madvise(area_at(0), HUGE_AREA, MADV_NOHUGEPAGE));
	memset(area_at(0), 1, HUGE_AREA);
	MUST(madvise(area_at(0), HUGE_AREA, MADV_HUGEPAGE));
}

/* Two areas, the first half of each is where guards come and go. */
static void guard(unsigned i)
{
	char *p = area_at(i), *at = p + rnd() % (AREA_PAGES / 2 - 8) * PAGE;
	size_t n = (1 + rnd() % 8) * PAGE;

	for (int k = 0; k < 4; k++)
		*(volatile uint32_t *)next_page(p + AREA_SIZE / 2, AREA_SIZE / 2) += 1;
	*(volatile uint32_t *)at += 1;
	MUST(madvise(at, n, MADV_GUARD_INSTALL));
	pause_us(rnd() % 500);
	MUST(madvise(at, n, MADV_GUARD_REMOVE));
	*(volatile uint32_t *)at += 1;
}

static bool can_guard(unsigned i)
{
	if (madvise(area_at(i), PAGE, MADV_GUARD_INSTALL) == 0)
		return MUST(madvise(area_at(i), PAGE, MADV_GUARD_REMOVE)) == 0;
	return false;
}

static void setup_guard(void)
{
	setup_small();
	if (!can_guard(0))
		skip("no guard regions: %s", strerror(errno));
}

static void step_guard(unsigned w)
{
	(void)w;
	guard(0);
}

static void setup_guard_file(void)
{
	area(0, MAP_PRIVATE, content_memfd("private", AREA_SIZE), AREA_SIZE);
	memset(area_at(0), 1, AREA_SIZE / 2);
	area(1, MAP_SHARED, content_memfd("shared", AREA_SIZE), AREA_SIZE);
	if (!can_guard(1))
		skip("no guard regions in maps of files: %s", strerror(errno));
}

/* Now and then, so that most rounds find no guard and track the memory. */
static void step_guard_file(unsigned w)
{
	(void)w;
	guard(rnd() % 2);
	pause_us(2000);
}

const struct way ways_advice[] = {
	{"dontneed", 1, setup_small, step_dontneed, NULL},
	{"dontneed-huge", 1, setup_huge, step_dontneed_huge, NULL},
	{"dontneed-read", 2, setup_read_back, step_read_back, NULL},
	{"free", 1, setup_small, step_free, NULL},
	{"remove", 1, setup_shared, step_remove, NULL},
	{"collapse", 1, setup_collapse, step_collapse, NULL},
	{"guard", 1, setup_guard, step_guard, NULL},
	{"guard-file", 1, setup_guard_file, step_guard_file, NULL},
	{0},
};
