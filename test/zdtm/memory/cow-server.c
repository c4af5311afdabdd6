/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A pre-forking server: 50 children share the memory of their parent.  Each child has some pages of its own,
 * and the parent has rewritten or dropped some since, whose older versions its children share with each
 * other, some of them before half of its children were made.
 */
#include <sys/mman.h>

#include "pss.h"

#define CHILDREN 50
#define PAGES    16384

enum { SHARED, EARLY, LATE, GONE, OWN }; /* what is done to a page */

static int kind_of(int page)
{
	return page % 16 == 3    ? EARLY
	       : page % 16 == 7  ? LATE
	       : page % 16 == 11 ? GONE
	       : page % 512 == 5 ? OWN
				 : SHARED;
}

static uint64_t seed_of(int page, int who) /* who: child, -1 the parent */
{
	switch (kind_of(page)) {
	case EARLY:
		return page + (who < 0 || who >= CHILDREN / 2 ? 1000000 : 0);
	case LATE:
		return page + (who < 0 ? 2000000 : 0);
	case OWN:
		return page + (who < 0 ? 0 : 10000000ull * (who + 1));
	}
	return page;
}

static void check(const char *p, int who)
{
	for (int i = 0; i < PAGES; i++)
		if (who < 0 && kind_of(i) == GONE)
			CHECK(!*(const uint64_t *)(p + i * 4096L),
			      "a dropped page of the parent is not empty");
		else
			test_check_fill(p + i * 4096L, 64, seed_of(i, who), who < 0 ? "parent" : "child");
}

static void rewrite(char *p, int who, int kind)
{
	for (int i = 0; i < PAGES; i++)
		if (kind_of(i) == kind)
			test_fill(p + i * 4096L, 64, seed_of(i, who));
}

static void child(char *p, int who, volatile int *flags)
{
	rewrite(p, who, OWN);
	flags[2 + who] = 1;
	while (!flags[0])
		test_sleep_ms(5);
	check(p, who);
	/* Nobody else may see this. */
	for (int i = who; i < PAGES; i += CHILDREN)
		p[i * 4096L] ^= 0x55;
	flags[2 + who] = 2;
	while (!flags[1])
		test_sleep_ms(5);
	for (int i = who; i < PAGES; i += CHILDREN)
		p[i * 4096L] ^= 0x55;
	check(p, who);
	_exit(who);
}

int main(int argc, char **argv)
{
	pid_t pids[CHILDREN];
	volatile int *flags;
	uint64_t before;
	char *p;

	test_init(argc, argv);
	flags = test_shared_flags(2 + CHILDREN);
	p = test_map(PAGES * 4096L, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS);
	for (int i = 0; i < PAGES; i++)
		test_fill(p + i * 4096L, 64, i);
	for (int i = 0; i < CHILDREN; i++) {
		if (i == CHILDREN / 2)
			rewrite(p, -1, EARLY);
		pids[i] = test_fork();
		if (!pids[i])
			child(p, i, flags);
	}
	rewrite(p, -1, LATE);
	for (int i = 0; i < PAGES; i++)
		if (kind_of(i) == GONE)
			MUST(madvise(p + i * 4096L, 4096, MADV_DONTNEED));
	for (int i = 0; i < CHILDREN; i++)
		while (flags[2 + i] != 1)
			test_sleep_ms(1);
	before = pss_of(pids, CHILDREN);
	test_ready();
	test_wait();
	check_pss(before, pss_of(pids, CHILDREN));
	check(p, -1);
	flags[0] = 1;
	for (int i = 0; i < CHILDREN; i++)
		while (flags[2 + i] != 2)
			test_sleep_ms(1);
	check(p, -1);
	for (int i = 0; i < PAGES; i++)
		p[i * 4096L] ^= 0xaa;
	flags[1] = 1;
	for (int i = 0; i < CHILDREN; i++)
		test_reap(pids[i], i);
	test_pass();
}
