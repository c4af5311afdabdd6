/* SPDX-License-Identifier: Apache-2.0 */
/* Huge pages of the pool: private, private of a memfd, shared by two mappings. */
#include <errno.h>
#include <fcntl.h>
#include <linux/memfd.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "ways.h"

#define HUGE  (2ul << 20)
#define PAGES 6 /* more than are written in a round: one that is dropped must stay so */
#define SIZE  (PAGES * HUGE)

enum { ANON, PRIVATE, SHARED, AGAIN };

static int fd;

static char *pool(unsigned i, int flags, int file)
{
	char *p = mmap(area_at(i), SIZE, PROT_READ | PROT_WRITE,
		       flags | MAP_FIXED | (file < 0 ? MAP_ANONYMOUS | MAP_HUGETLB : 0), file, 0);

	if (p == MAP_FAILED)
		skip("no huge pages: %s", strerror(errno));
	return p;
}

static int pool_memfd(const char *name)
{
	int file = memfd_create(name, MFD_CLOEXEC | MFD_HUGETLB);

	if (file < 0)
		skip("no huge pages for a memfd: %s", strerror(errno));
	MUST(ftruncate(file, SIZE));
	return file;
}

static void setup(void)
{
	int below = pool_memfd("below");
	char *p = pool(PRIVATE, MAP_SHARED, below);

	for (size_t i = 0; i < SIZE; i += PAGE)
		memset(p + i, (int)(i / PAGE | 1), PAGE);
	pool(PRIVATE, MAP_PRIVATE, below);
	fd = pool_memfd("shared");
	memset(pool(ANON, MAP_PRIVATE, -1), 1, SIZE);
	memset(pool(SHARED, MAP_SHARED, fd), 2, SIZE);
	pool(AGAIN, MAP_SHARED, fd);
}

static void step(unsigned w)
{
	unsigned i = rnd() % 4;
	char *page = area_at(i) + rnd() % PAGES * HUGE;

	(void)w;
	switch (rnd() % 8) {
	case 0: /* where there is a file, its content comes back */
		if (i <= PRIVATE) {
			MUST(madvise(page, HUGE, MADV_DONTNEED));
			if (rnd() % 2) /* read, it is there again and keeps its protection */
				(void)*(volatile char *)page;
		} else
			MUST(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, page - area_at(i),
				       HUGE));
		break;
	case 1: {
		int zero = (int)MUST(open(program_path(), O_RDONLY | O_CLOEXEC));

		MUST(pread(zero, page + rnd() % 500 * PAGE, PAGE, (off_t)(rnd() % 8 * 64)));
		close(zero);
		break;
	}
	default:
		scribble(page + rnd() % 512 * PAGE, 256);
	}
	pause_us(5000);
}

const struct way ways_hugetlb[] = {
	{"hugetlb", 1, setup, step, NULL},
	{0},
};
