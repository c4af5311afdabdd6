/* SPDX-License-Identifier: Apache-2.0 */
/* Advice and kinds of mappings that do something later: what they do, not only what smaps says. */
#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "memory.h"

#define SIZE (64UL * 4096)

static char *dontfork, *wipe, *dontdump, *freed, *locked, *onfault, *grows, *noreserve, *locked_advised;

static bool is_mapped(const char *p)
{
	unsigned char vec[1];

	return mincore((void *)p, 4096, vec) == 0;
}

static void in_child(void)
{
	CHECK(!is_mapped(dontfork), "MADV_DONTFORK memory is in a child");
	for (size_t i = 0; i < SIZE; i += 4096)
		CHECK_EQ(wipe[i], 0);
	test_check_fill(dontdump, SIZE, 3, "in the child");
	exit(0);
}

static unsigned resident(const char *p)
{
	unsigned char vec[SIZE / 4096];
	unsigned n = 0;

	MUST(mincore((void *)p, SIZE, vec));
	for (size_t i = 0; i < SIZE / 4096; i++)
		n += vec[i] & 1;
	return n;
}

/* A stack-like mapping with room below. */
static char *make_grows(void)
{
	char *room = test_map(1024 * 4096UL, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE);

	MUST(munmap(room, 1024 * 4096UL));
	return MUST(mmap(room + 1000 * 4096UL, 2 * 4096, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_GROWSDOWN | MAP_FIXED_NOREPLACE, -1, 0));
}

int main(int argc, char **argv)
{
	struct mem_use use;
	long rss;

	test_init(argc, argv);
	dontfork = mem_alone(SIZE);
	wipe = mem_alone(SIZE);
	dontdump = mem_alone(SIZE);
	freed = mem_alone(SIZE);
	locked = mem_alone(SIZE);
	onfault = mem_alone(SIZE);
	locked_advised = mem_alone(4UL << 20);
	noreserve = test_map(64UL << 30, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE);
	grows = make_grows();
	test_fill(dontfork, SIZE, 1);
	test_fill(wipe, SIZE, 2);
	test_fill(dontdump, SIZE, 3);
	test_fill(freed, SIZE, 4);
	test_fill(grows, 2 * 4096, 5);
	grows[-4096] = 6; /* it has grown once */
	test_fill(noreserve + (33UL << 30), 4096, 7);
	MUST(madvise(dontfork, SIZE, MADV_DONTFORK));
	MUST(madvise(wipe, SIZE, MADV_WIPEONFORK));
	MUST(madvise(dontdump, SIZE, MADV_DONTDUMP));
	MUST(madvise(freed, SIZE, MADV_FREE));
	freed[0]++; /* this page is kept */
	MUST(mlock(locked, SIZE));
	MUST(mlock2(onfault, SIZE, MLOCK_ONFAULT));
	onfault[4096] = 8;
	locked[5 * 4096] = 9;
	MUST(madvise(locked_advised, 4UL << 20, MADV_HUGEPAGE));
	MUST(mlock(locked_advised, 4UL << 20));
	use = mem_use(locked_advised, 4UL << 20);
	CHECK_EQ(resident(locked), SIZE / 4096);
	CHECK_EQ(resident(onfault), 1);
	rss = mem_use(noreserve, 64UL << 30).rss;
	test_ready();
	test_wait();
	mem_check_near(rss, mem_use(noreserve, 64UL << 30).rss, 0, 0, "MAP_NORESERVE memory");
	CHECK_EQ(resident(locked), SIZE / 4096);
	CHECK_EQ(resident(onfault), 1);
	mem_check_near(use.rss, mem_use(locked_advised, 4UL << 20).rss, 0, 0, "locked huge pages");
	mem_check_near(use.anon_huge, mem_use(locked_advised, 4UL << 20).anon_huge, 0, 0,
		       "locked huge pages");
	onfault[9 * 4096] = 1;
	CHECK_EQ(resident(onfault), 2);
	CHECK_EQ(onfault[4096], 8);
	CHECK_EQ(locked[5 * 4096], 9);
	test_check_fill(dontfork, SIZE, 1, "DONTFORK");
	test_check_fill(wipe, SIZE, 2, "WIPEONFORK");
	test_check_fill(dontdump, SIZE, 3, "DONTDUMP");
	test_check_fill(noreserve + (33UL << 30), 4096, 7, "NORESERVE");
	test_check_fill(grows, 2 * 4096, 5, "GROWSDOWN");
	CHECK_EQ(grows[-4096], 6);
	for (int i = 2; i < 40; i++)
		grows[-4096 * i] = (char)i; /* and grows again */
	freed[0]--;
	test_check_fill(freed, 4096, 4, "a page written after MADV_FREE");
	for (size_t i = 4096; i < SIZE; i += 4096) {
		static const char zero[4096];

		if (memcmp(freed + i, zero, 4096))
			test_check_fill(freed, i + 4096, 4, "MADV_FREE: neither zero nor what it was");
	}
	pid_t pid = test_fork();

	if (!pid)
		in_child();
	test_reap(pid, 0);
	test_pass();
}
