/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Guard regions that come and go in mappings of files while the program is copied.  A thread may be anywhere
 * in madvise(2) when it is stopped, and kernels try it for ever over pages that are write protected: the
 * program must go on while it is followed, and what it finds afterwards must be what it has made.
 */
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>

#include "zdtm.h"

#define PAGES     64
#define GUARD     8
#define FILE_SEED 7

static sigjmp_buf back;

static struct map {
	char *at;
	bool shared;
	uint64_t seed[PAGES]; /* of each page's content */
	int guard;            /* the first of GUARD pages; -1: none */
} map[2];

static void handler(int sig)
{
	(void)sig;
	siglongjmp(back, 1);
}

static bool reads(volatile char *p)
{
	if (sigsetjmp(back, 1))
		return false;
	(void)*p;
	return true;
}

static void check_page(const struct map *m, int i)
{
	bool guarded = m->guard >= 0 && i >= m->guard && i < m->guard + GUARD;

	CHECK(reads(m->at + i * 4096) == !guarded, "page %d is %s a guard", i, guarded ? "not" : "");
	if (!guarded)
		test_check_fill(m->at + i * 4096, 4096, m->seed[i], m->shared ? "shared" : "private");
}

static void install(struct map *m, int at)
{
	if (madvise(m->at + at * 4096, GUARD * 4096, 102))
		test_skip("no guards in file mappings: %s", strerror(errno));
	m->guard = at;
	for (int i = at; i < at + GUARD && !m->shared; i++)
		m->seed[i] = FILE_SEED; /* own pages are dropped */
}

static void lift(struct map *m)
{
	for (int i = m->guard; i < m->guard + GUARD; i++)
		check_page(m, i);
	MUST(madvise(m->at + m->guard * 4096, GUARD * 4096, 103));
	m->guard = -1;
}

static void set_up(struct map *m, bool shared)
{
	int fd = MUST(memfd_create(shared ? "shared" : "private", 0));

	MUST(ftruncate(fd, PAGES * 4096));
	m->at = MUST(mmap(NULL, PAGES * 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
	for (int i = 0; i < PAGES; i++)
		test_fill(m->at + i * 4096, 4096, FILE_SEED);
	if (!shared) {
		MUST(munmap(m->at, PAGES * 4096));
		m->at = MUST(mmap(NULL, PAGES * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0));
	}
	m->shared = shared;
	m->guard = -1;
	for (int i = 0; i < PAGES; i++)
		test_fill(m->at + i * 4096, 4096, m->seed[i] = 100 + i);
}

int main(int argc, char **argv)
{
	uint64_t state = 88172645463325252ULL, next = 1000;

	test_init(argc, argv);
	signal(SIGSEGV, handler);
	set_up(&map[0], false);
	set_up(&map[1], true);
	install(&map[1], 0); /* or it is skipped */
	lift(&map[1]);
	test_ready();
	while (test_wait_ms(2)) {
		struct map *m = &map[test_random(&state) % 2];
		int i = test_random(&state) % PAGES;

		if (m->guard >= 0)
			lift(m);
		else if (test_random(&state) % 2)
			install(m, test_random(&state) % (PAGES - GUARD));
		check_page(m, i);
		if (m->guard < 0)
			test_fill(m->at + i * 4096, 4096, m->seed[i] = next++);
	}
	for (int k = 0; k < 2; k++)
		for (int i = 0; i < PAGES; i++)
			check_page(&map[k], i);
	test_pass();
}
