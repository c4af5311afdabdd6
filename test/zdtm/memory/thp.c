/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What transparent huge pages mapped is mapped by them again, and nothing else is: memory use of each kind of
 * mapping, as smaps shows it, before and after.
 */
#include <sys/mman.h>

#include "memory.h"

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif
#define HUGE  (2UL << 20)
#define UNITS 6
#define SIZE  (UNITS * HUGE)

enum { ASKED, WRITTEN, PLAIN, SPARSE, SMALL, HOLES, ZEROS, KEPT_SMALL, READ_ONLY, KINDS };
static const char *const name[KINDS] = {"asked for", "written all the time", "collapsed",
					"sparse",    "small pages",          "with holes",
					"zeros",     "NOHUGEPAGE",           "read-only"};

static char *make(int kind)
{
	char *p = mem_alone(SIZE);

	if (kind == SPARSE || kind == SMALL) {
		/* Small pages are there before the advice that would make them huge. */
		MUST(madvise(p, SIZE, MADV_NOHUGEPAGE));
		for (size_t i = 0; i < SIZE; i += kind == SPARSE ? HUGE / 2 : 4096)
			p[i] = (char)(i >> 12 | 1);
		MUST(madvise(p, SIZE, MADV_HUGEPAGE));
		return p;
	}
	if (kind == PLAIN) {
		test_fill(p, SIZE, kind);
		MUST(madvise(p, SIZE, MADV_COLLAPSE));
		return p;
	}
	MUST(madvise(p, SIZE, kind == KEPT_SMALL ? MADV_NOHUGEPAGE : MADV_HUGEPAGE));
	if (kind == ZEROS)
		for (size_t i = 0; i < SIZE; i += HUGE)
			p[i + HUGE - 1] = 0;
	else
		test_fill(p, SIZE, kind);
	if (kind == HOLES)
		for (size_t i = 0; i < SIZE; i += 2 * HUGE)
			MUST(madvise(p + i + 5 * 4096, 7 * 4096, MADV_DONTNEED));
	if (kind == READ_ONLY)
		MUST(mprotect(p, SIZE, PROT_READ));
	return p;
}

static void check_content(int kind, const char *p)
{
	for (size_t i = 0; i < SIZE; i += 4096) {
		size_t in = i % (2 * HUGE) / 4096;

		if (kind == SPARSE || kind == SMALL)
			CHECK_EQ(p[i], kind == SMALL || i % (HUGE / 2) == 0 ? (char)(i >> 12 | 1) : 0);
		else if (kind == ZEROS || (kind == HOLES && in >= 5 && in < 12))
			CHECK_EQ(p[i + 4095], 0);
	}
	if (kind == ASKED || kind == PLAIN || kind == KEPT_SMALL || kind == READ_ONLY)
		test_check_fill(p, SIZE, kind, name[kind]);
}

/* One more page is dropped each time, at first only of the first huge page, then of the next: some were huge
 * when the copying began and are not any more. */
#define DROP_UNITS 24
#define DROP_EACH  15
static volatile int drops;

static void drop_one(char *p)
{
	if (drops == DROP_UNITS * DROP_EACH)
		return;
	MUST(madvise(p + drops / DROP_EACH * HUGE + drops % DROP_EACH * 3 * 4096, 4096, MADV_DONTNEED));
	drops++;
}

/* khugepaged may make a huge page of anything that asks for them, at a time of its own: how many it has made.
 */
static long collapsed(void)
{
	static const char file[] = "/sys/kernel/mm/transparent_hugepage/khugepaged/pages_collapsed";
	char text[32] = "";

	if (!access(file, R_OK))
		test_read_file(file, text, sizeof(text));
	return atol(text);
}

/* Content first: what is still there of a dropped page is worse than what it takes. */
static void check_drops(const char *p, long others)
{
	struct mem_use u = mem_use(p, DROP_UNITS * HUGE);
	long left = 0;

	for (int i = 0; i < drops; i++)
		left += p[i / DROP_EACH * HUGE + i % DROP_EACH * 3 * 4096] != 0;
	CHECK_EQ(left, 0);
	CHECK_EQ(p[DROP_UNITS * HUGE - 1], 1);
	if (collapsed() != others)
		return;
	/* Pages of one huge page may have been dropped in the moment in which it was put together again: they
	 * are there then, with zeros (docs/limits.md). */
	mem_check_near((long)(DROP_UNITS * HUGE >> 10) - drops * 4L, u.rss, 0, DROP_EACH * 4,
		       "memory that is dropped");
	mem_check_near((DROP_UNITS - (drops + DROP_EACH - 1) / DROP_EACH) * 2048L, u.anon_huge, 0, 2048,
		       "huge pages of memory that is dropped");
}

static char *p[KINDS], *dropped;

static void make_all(struct mem_use *use)
{
	for (int i = 0; i < KINDS; i++)
		p[i] = make(i);
	dropped = mem_alone(DROP_UNITS * HUGE);
	MUST(madvise(dropped, DROP_UNITS * HUGE, MADV_HUGEPAGE));
	memset(dropped, 1, DROP_UNITS * HUGE);
	for (int i = 0; i < KINDS; i++)
		use[i] = mem_use(p[i], SIZE);
}

static void unmake_all(void)
{
	for (int i = 0; i < KINDS; i++)
		MUST(munmap(p[i], SIZE));
	MUST(munmap(dropped, DROP_UNITS * HUGE));
}

int main(int argc, char **argv)
{
	struct mem_use before[KINDS], last[KINDS];
	uint64_t seed = 1;
	long others;

	test_init(argc, argv);
	for (int tries = 0;; tries++) {
		others = collapsed();
		make_all(before);
		if (collapsed() == others)
			break;
		if (tries == 20)
			test_skip("khugepaged does not leave it alone");
		unmake_all();
	}
	if (!before[ASKED].anon_huge)
		test_skip("this machine makes no huge pages");
	CHECK_EQ(before[ASKED].anon_huge, SIZE >> 10);
	CHECK_EQ(before[PLAIN].anon_huge, SIZE >> 10);
	CHECK_EQ(before[SPARSE].anon_huge, 0);
	CHECK_EQ(before[SMALL].anon_huge, 0);
	CHECK_EQ(before[HOLES].anon_huge, SIZE / 2 >> 10);
	test_ready();
	while (test_wait_ms(1)) {
		for (int i = 0; i < 64; i++)
			p[WRITTEN][test_random(&seed) % SIZE]++;
		memset(p[WRITTEN] + test_random(&seed) % (SIZE / 4096) * 4096, 0, 4096);
		drop_one(dropped);
	}
	/* Measured before it is looked at: reading would fill holes with the zero page, or a huge one. */
	for (int i = 0; i < KINDS; i++)
		last[i] = mem_use(p[i], SIZE);
	bool alone = collapsed() == others; /* khugepaged has made none meanwhile */

	for (int i = 0; i < KINDS && alone; i++) {
		mem_check_near(before[i].anon_huge, last[i].anon_huge, 10, 0, name[i]);
		mem_check_near(before[i].rss, last[i].rss, 0, 0, name[i]);
	}
	check_drops(dropped, others);
	for (int i = 0; i < KINDS; i++)
		check_content(i, p[i]);
	test_pass();
}
