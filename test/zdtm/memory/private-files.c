/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Private pages over holes of a file: made again without a page of the file.  What the file takes is the same
 * before and after, and other mappings of it see nothing.
 */
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>

#include "memory.h"

#define PAGES 256
#define SIZE  (PAGES * 4096UL)

enum { MEMFD, MEMFD_ONLY_MAPPED, TMPFS, DISK, KINDS };
static const char *const name[KINDS] = {"memfd", "memfd without descriptor", "file on tmpfs", "file on disk"};

static struct {
	int fd;
	char *mine, *shared;
	struct stat st;
	long anon;
} f[KINDS];

static bool is_private(int page)
{
	return page % 7 == 3 || (page > 100 && page < 140);
}

static char path[64]; /* on tmpfs */

static int open_file(int kind)
{
	struct timespec now;
	int fd;

	if (kind == DISK) {
		fd = MUST(open(test_path("file"), O_RDWR | O_CREAT | O_TRUNC, 0600));
	} else if (kind == TMPFS) {
		MUST(clock_gettime(CLOCK_REALTIME, &now));
		snprintf(path, sizeof(path), "/dev/shm/ferry-test-%ld.%09ld", (long)now.tv_sec, now.tv_nsec);
		fd = MUST(open(path, O_RDWR | O_CREAT | O_EXCL, 0600));
	} else {
		fd = MUST(memfd_create("private", 0));
	}
	MUST(ftruncate(fd, SIZE));
	/* Some of it has content. */
	for (int i = 0; i < PAGES; i += 32)
		MUST(pwrite(fd, "file", 4, i * 4096L + 8));
	return fd;
}

/* Of the file behind a mapping. */
static void stat_mapped(const char *p, struct stat *st)
{
	char link[64];

	snprintf(link, sizeof(link), "/proc/self/map_files/%lx-%lx", (unsigned long)p,
		 (unsigned long)p + SIZE);
	MUST(stat(link, st));
}

/* Without a page of the file: a store would allocate one below. */
static void make_private(int kind)
{
	static char page[4096];
	char *p = f[kind].mine;

	for (int i = 0; i < PAGES; i++) {
		if (!is_private(i))
			continue;
		test_fill(page, 4096, i);
		memcpy(p + i * 4096L, page, 4096);
	}
	/* The pages below that the stores made go again; private ones stay. */
	for (int i = 0; i < PAGES; i++)
		if (is_private(i) && i % 32)
			MUST(fallocate(f[kind].fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, i * 4096L,
				       4096));
}

static void check(int kind)
{
	struct stat st;
	struct mem_use u = mem_use(f[kind].mine, SIZE);

	stat_mapped(f[kind].mine, &st);
	CHECK(st.st_blocks == f[kind].st.st_blocks, "%s takes %ld blocks, was %ld", name[kind],
	      (long)st.st_blocks, (long)f[kind].st.st_blocks);
	CHECK_EQ(st.st_size, SIZE);
	mem_check_near(f[kind].anon, u.anon, 0, 0, name[kind]);
	for (int i = 0; i < PAGES; i++) {
		const char *mine = f[kind].mine + i * 4096L, *shared = f[kind].shared + i * 4096L;

		if (f[kind].shared)
			CHECK(!memcmp(shared + 8, i % 32 ? "\0\0\0\0" : "file", 4) && !shared[0] &&
				      !shared[4095],
			      "%s: page %d is seen by another mapping", name[kind], i);
		if (is_private(i))
			test_check_fill(mine, 4096, i, name[kind]);
		else
			CHECK(!memcmp(mine + 8, i % 32 ? "\0\0\0\0" : "file", 4),
			      "%s: page %d is not the file's", name[kind], i);
	}
}

int main(int argc, char **argv)
{
	test_init(argc, argv);
	for (int i = 0; i < KINDS; i++) {
		f[i].fd = open_file(i);
		f[i].mine = MUST(mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE, f[i].fd, 0));
		if (i != MEMFD_ONLY_MAPPED)
			f[i].shared = MUST(mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, f[i].fd, 0));
		make_private(i);
	}
	for (int i = 0; i < KINDS; i++) {
		stat_mapped(f[i].mine, &f[i].st);
		f[i].anon = mem_use(f[i].mine, SIZE).anon;
		CHECK(f[i].anon > 0, "no private pages");
	}
	MUST(close(f[MEMFD_ONLY_MAPPED].fd));
	test_ready();
	test_wait();
	for (int i = 0; i < KINDS; i++)
		check(i);
	MUST(unlink(path));
	test_pass();
}
