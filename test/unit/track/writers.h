/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Ways to change memory, each for one thread of the target: run for ever, never touch another one's memory.
 */
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE_ 4096ul
#define AREA  (8ul << 20)

struct writer {
	const char *name;
	void *(*run)(void *arg);
	int arg;
};

/* One per writer, in memory of the target. */
static struct progress {
	_Atomic unsigned long steps;
	char *area;
} * progress;

static unsigned rnd(unsigned *seed)
{
	return *seed = *seed * 1664525 + 1013904223, *seed >> 8;
}

static char *area(const struct writer *w, int flags, int fd, int advice)
{
	char *p = mmap(NULL, AREA * 2, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	p = (char *)(((uintptr_t)p + (2 << 20) - 1) & ~((2ul << 20) - 1));
	p = mmap(p, AREA, PROT_READ | PROT_WRITE, MAP_FIXED | flags, fd, 0);
	if (p == MAP_FAILED)
		_exit(71);
	madvise(p, AREA, advice);
	progress[w->arg].area = p;
	return p;
}

static void stores(char *p, unsigned *seed, int n)
{
	for (int i = 0; i < n; i++)
		*(volatile uint64_t *)(p + (rnd(seed) % (AREA / 8)) * 8) = rnd(seed);
}

static void drop_some(char *p, unsigned *seed)
{
	size_t huge = rnd(seed) % 8 == 0, unit = huge ? 2ul << 20 : PAGE_;
	size_t at = rnd(seed) % (AREA / unit) * unit, len = unit * (huge ? 1 : 1 + rnd(seed) % 8);

	madvise(p + at, at + len > AREA ? AREA - at : len, MADV_DONTNEED);
}

/* Zero pages come where nothing is. */
static void read_some(char *p, unsigned *seed)
{
	for (int i = 0; i < 4; i++)
		(void)*(volatile char *)(p + rnd(seed) % AREA);
}

static unsigned pause_us = 200; /* of a writer, after each step */

static bool for_ever(int index)
{
	atomic_fetch_add(&progress[index].steps, 1);
	usleep(pause_us);
	return true;
}
#define LOOP(index) while (for_ever(index))

static void *w_anon(void *arg)
{
	const struct writer *w = arg;
	unsigned seed = 1;
	char *p = area(w, MAP_PRIVATE | MAP_ANONYMOUS, -1, MADV_NOHUGEPAGE);

	LOOP(w->arg)
	{
		stores(p, &seed, 64);
		drop_some(p, &seed);
		read_some(p, &seed);
	}
	return NULL;
}

/* Each page once in a long while: a write that is lost between two steps of a round stays lost. */
static void *w_once(void *arg)
{
	const struct writer *w = arg;
	unsigned i = 0;
	char *p = area(w, MAP_PRIVATE | MAP_ANONYMOUS, -1, MADV_NOHUGEPAGE);

	memset(p, 1, AREA);
	LOOP(w->arg)
	{
		for (int k = 0; k < 2; k++, i++)
			*(volatile unsigned *)(p + i * 1237 % (AREA / PAGE_) * PAGE_) = i;
	}
	return NULL;
}

static void *w_huge(void *arg)
{
	const struct writer *w = arg;
	unsigned seed = 2;
	char *p = area(w, MAP_PRIVATE | MAP_ANONYMOUS, -1, MADV_HUGEPAGE);

	memset(p, 1, AREA);
	LOOP(w->arg)
	{
		stores(p, &seed, 8);
		if (rnd(&seed) % 4 == 0)
			drop_some(p, &seed);
		read_some(p, &seed);
	}
	return NULL;
}

/* The kernel writes: read(2), readv, another address space's view of it. */
static void *w_kernel(void *arg)
{
	const struct writer *w = arg;
	unsigned seed = 3;
	char *p = area(w, MAP_PRIVATE | MAP_ANONYMOUS, -1, MADV_NOHUGEPAGE);
	int fd = open("/dev/urandom", O_RDONLY | O_CLOEXEC);

	LOOP(w->arg)
	{
		size_t len = rnd(&seed) % 20000;

		if (read(fd, p + rnd(&seed) % (AREA - len), len) < 0)
			_exit(72);
	}
	return NULL;
}

/* Where a writer of maps works. */
struct patch {
	char *base, *p;
	size_t len;
};
#define PATCH (64 * PAGE_)

static void remap(struct patch *m, unsigned how, char *to)
{
	const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED;
	char *got = m->p;

	switch (how) {
	case 0: /* move, to a place that may have been used before */
		if (to != m->p)
			got = mremap(m->p, m->len, m->len, MREMAP_MAYMOVE | MREMAP_FIXED, to);
		break;
	case 1: /* grow or shrink where it is */
		munmap(m->p + PATCH, m->len == PATCH ? PATCH : 0);
		got = mremap(m->p, m->len, 3 * PATCH - m->len, 0);
		m->len = 3 * PATCH - m->len;
		break;
	case 2: /* keep the source, empty */
		if (to != m->p)
			got = mremap(m->p, m->len, m->len, MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP,
				     to);
		break;
	case 3: /* fresh memory in its place */
		got = mmap(m->p, m->len, PROT_READ | PROT_WRITE, flags, -1, 0);
		break;
	case 4:
		mprotect(m->p, m->len / 2, PROT_NONE);
		mprotect(m->p, m->len / 2, PROT_READ | PROT_WRITE);
		break;
	default:
		break;
	}
	if (got == MAP_FAILED) { /* it may if a part became tracked just now: start again */
		m->len = PATCH;
		got = mmap(m->p = m->base, PATCH, PROT_READ | PROT_WRITE, flags, -1, 0);
	}
	m->p = got;
}

/* Grow, shrink, move, leave behind, map anew at the same place, protect. */
static void *w_maps(void *arg)
{
	const struct writer *w = arg;
	unsigned seed = 5;
	struct patch m = {.base = mmap(NULL, 16 * PATCH, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0),
			  .len = PATCH};

	m.p = mmap(m.base, PATCH, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	LOOP(w->arg)
	{
		for (int i = 0; i < 8; i++)
			m.p[rnd(&seed) % m.len] = (char)rnd(&seed);
		remap(&m, rnd(&seed) % 6, m.base + (rnd(&seed) % 8) * 2 * PATCH);
	}
	return NULL;
}

static void *w_fork(void *arg)
{
	const struct writer *w = arg;
	unsigned seed = 6;
	char *p = area(w, MAP_PRIVATE | MAP_ANONYMOUS, -1, MADV_NOHUGEPAGE);

	memset(p, 1, AREA);
	LOOP(w->arg)
	{
		pid_t pid = (pid_t)syscall(SYS_fork);

		stores(p, &seed, 32); /* both sides copy */
		if (pid == 0)
			_exit(0);
		stores(p, &seed, 32);
		waitpid(pid, NULL, 0);
		usleep(3000);
	}
	return NULL;
}

static void *w_private_file(void *arg)
{
	const struct writer *w = arg;
	unsigned seed = 7;
	int fd = memfd_create("private", MFD_CLOEXEC);
	char page[PAGE_];

	for (size_t i = 0; i < AREA / PAGE_; i++) {
		memset(page, (int)i | 1, sizeof(page));
		if (write(fd, page, sizeof(page)) < 0)
			_exit(74);
	}
	char *p = area(w, MAP_PRIVATE, fd, MADV_NOHUGEPAGE);

	LOOP(w->arg)
	{
		stores(p, &seed, 64);
		drop_some(p, &seed);
		for (int i = 0; i < 8; i++)
			(void)*(volatile char *)(p + rnd(&seed) % AREA);
	}
	return NULL;
}

static void *w_disk_file(void *arg)
{
	const struct writer *w = arg;
	unsigned seed = 8;
	char name[] = "/var/tmp/ferry-unit-XXXXXX";
	int fd = mkstemp(name);

	unlink(name);
	if (fd < 0 || ftruncate(fd, AREA) < 0)
		_exit(75);
	char *p = area(w, MAP_PRIVATE, fd, MADV_NORMAL);

	LOOP(w->arg)
	{
		stores(p, &seed, 32);
		drop_some(p, &seed);
	}
	return NULL;
}

static void *w_shared(void *arg)
{
	const struct writer *w = arg;
	unsigned seed = 9;
	int fd = memfd_create("shared", MFD_CLOEXEC);

	if (ftruncate(fd, AREA) < 0)
		_exit(76);
	char *p = area(w, MAP_SHARED, fd, MADV_NORMAL);

	LOOP(w->arg)
	{
		stores(p, &seed, 64);
		if (rnd(&seed) % 4 == 0)
			drop_some(p, &seed);
	}
	return NULL;
}

static void *w_brk(void *arg)
{
	const struct writer *w = arg;
	unsigned seed = 10;
	size_t have = 0;

	LOOP(w->arg)
	{
		long step = (long)(rnd(&seed) % 32) * (long)PAGE_;

		if (have < 1 << 20 || rnd(&seed) % 2) {
			char *p = sbrk(step);

			if (p == (void *)-1)
				_exit(77);
			memset(p, (int)rnd(&seed), (size_t)step);
			have += (size_t)step;
		} else if ((size_t)step <= have) {
			sbrk(-step);
			have -= (size_t)step;
		}
	}
	return NULL;
}

/* Grows a stack that grows by itself; for the main thread. */
__attribute__((noinline)) static int w_stack(int depth, unsigned *seed)
{
	volatile char frame[3000];

	frame[rnd(seed) % sizeof(frame)] = (char)depth;
	int r = depth ? w_stack(depth - 1, seed) + 1 : 0;

	return r + frame[0] * 0;
}
