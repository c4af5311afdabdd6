/* SPDX-License-Identifier: Apache-2.0 */
/* MAP_HUGETLB, private: written while it is copied, dropped, read-only, inaccessible, never touched; and a
 * child with its own. */
#include <sys/mman.h>

#include "zdtm.h"

#define HUGE  (2UL << 20)
#define PAGES 6

static char *map(int prot)
{
	char *p = mmap(NULL, PAGES * HUGE, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB | (21 << 26), -1, 0);

	if (p == MAP_FAILED)
		test_skip("no huge pages: %s", strerror(errno));
	test_fill(p, HUGE, 1);
	test_fill(p + HUGE, HUGE, 2);
	memset(p + 2 * HUGE, 0, HUGE);
	test_fill(p + 3 * HUGE, HUGE, 3);
	test_fill(p + 4 * HUGE, HUGE, 4);
	MUST(madvise(p + 4 * HUGE, HUGE, MADV_DONTNEED));
	MUST(mprotect(p + 3 * HUGE, HUGE, prot));
	return p;
}

static void check(char *p, int seed)
{
	CHECK(mprotect(p + 3 * HUGE, HUGE, PROT_READ) == 0, "mprotect");
	test_check_fill(p, HUGE, seed, "first page");
	test_check_fill(p + HUGE, HUGE, 2, "second page");
	test_check_fill(p + 3 * HUGE, HUGE, 3, "protected page");
	for (size_t i = 0; i < HUGE; i++)
		CHECK(!p[2 * HUGE + i] && !p[4 * HUGE + i] && !p[5 * HUGE + i], "a page is not zero at %zu",
		      i);
}

/* Populated, and dropped one after the other: no backend sees that as a write. */
#define DROPS 12
static char *drops;
static volatile int dropped;

static void drop_one(void)
{
	if (dropped == DROPS)
		return;
	MUST(madvise(drops + dropped * HUGE, HUGE, MADV_DONTNEED));
	dropped++;
}

static void check_drops(void)
{
	for (int i = 0; i < DROPS; i++)
		CHECK_EQ(drops[i * HUGE + 9], i < dropped ? 0 : i + 1);
}

/* Written again and again, and read-only in between. */
static void write_protected(char *p, int seed)
{
	MUST(mprotect(p, HUGE, PROT_READ | PROT_WRITE));
	test_fill(p, HUGE, seed);
	MUST(mprotect(p, HUGE, PROT_READ));
}

int main(int argc, char **argv)
{
	volatile int *flag;
	char *p, *q;
	int seed = 1;

	test_init(argc, argv);
	flag = test_shared_flags(1);
	p = map(PROT_READ);
	q = map(PROT_NONE);
	drops = mmap(NULL, DROPS * HUGE, PROT_READ | PROT_WRITE,
		     MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB | (21 << 26), -1, 0);
	if (drops == MAP_FAILED)
		test_skip("no huge pages: %s", strerror(errno));
	for (int i = 0; i < DROPS; i++)
		drops[i * HUGE + 9] = (char)(i + 1);
	pid_t pid = test_fork();

	if (!pid) {
		MUST(munmap(drops, DROPS * HUGE));
		test_fill(p, HUGE, 77);
		*flag = 1;
		while (test_waiting())
			test_sleep_ms(5);
		check(p, 77);
		check(q, 1);
		exit(0);
	}
	while (!*flag)
		test_sleep_ms(1);
	test_ready();
	while (test_wait_ms(3)) {
		test_fill(p, HUGE, ++seed);
		write_protected(q, seed);
		if (seed % 8 == 0)
			drop_one();
	}
	check(p, seed);
	check(q, seed);
	check_drops();
	memset(p + 5 * HUGE, 5, HUGE);
	test_reap(pid, 0);
	test_pass();
}
