/* SPDX-License-Identifier: Apache-2.0 */
/* Memory that has several faces: two mappings, a file, a process that is soon gone. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ways.h"

static int fd;

/* Read first: then the page is mapped writable without a fault of a write, and nothing of the file changes
 * but its content. */
static void quiet_store(char *area)
{
	volatile uint32_t *p = (volatile uint32_t *)(next_page(area, AREA_SIZE) + rnd() % 1000 * 4);

	*p = *p + 1;
}

static void setup_memfd(void)
{
	fd = content_memfd("stress", AREA_SIZE);
	area(0, MAP_SHARED, fd, AREA_SIZE);
	CONTROL->fd = fd;
}

static void setup_two(void)
{
	setup_memfd();
	area(1, MAP_SHARED, fd, AREA_SIZE);
	if (MUST(fork()) == 0)
		for (;; pause_us(200))
			quiet_store(area_at(rnd() % 2));
}

static void step_two(unsigned w)
{
	(void)w;
	quiet_store(area_at(0));
	quiet_store(area_at(1));
	pause_us(200);
}

static void setup_brief(void)
{
	setup_memfd();
	memset(area(1, MAP_SHARED, -1, AREA_SIZE), 1, AREA_SIZE);
}

static void by_mapping(char *p)
{
	MUST(p);
	quiet_store(p);
	MUST(munmap(p, AREA_SIZE));
}

static void by_child(void)
{
	pid_t pid = (pid_t)MUST(syscall(SYS_fork)); /* without the libc's own stores */

	if (pid == 0) {
		for (int i = 0; i < 4; i++) {
			quiet_store(area_at(0));
			quiet_store(area_at(1));
		}
		_exit(0);
	}
	MUST(waitpid(pid, NULL, 0));
}

static void step_brief(unsigned w)
{
	(void)w;
	switch (rnd() % 3) {
	case 0:
		by_mapping(mmap(NULL, AREA_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
		break;
	case 1: /* a second mapping of memory that has no file to open */
		by_mapping(mremap(area_at(1), 0, AREA_SIZE, MREMAP_MAYMOVE));
		break;
	default:
		by_child();
		break;
	}
	pause_us(200);
}

static void step_nothing(unsigned w)
{
	(void)w;
	pause_us(1000);
}

static void outsider(pid_t target)
{
	static char *mine;

	if (!mine) {
		char path[64];
		struct control c;
		int mem;

		snprintf(path, sizeof(path), "/proc/%d/mem", target);
		mem = (int)MUST(open(path, O_RDONLY | O_CLOEXEC));
		MUST(pread(mem, &c, sizeof(c), CONTROL_ADDR));
		close(mem);
		snprintf(path, sizeof(path), "/proc/%d/fd/%d", target, c.fd);
		int its = (int)MUST(open(path, O_RDWR | O_CLOEXEC));

		mine = (char *)MUST(mmap(NULL, AREA_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, its, 0));
		close(its);
	}
	quiet_store(mine);
	pause_us(200);
}

static void change_file(void)
{
	static char data[4 * PAGE];
	off_t at = (off_t)(rnd() % (AREA_PAGES - 4) * PAGE), n = (off_t)((1 + rnd() % 4) * PAGE);

	switch (rnd() % 8) {
	case 0:
		MUST(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, at, n));
		break;
	case 1:
		MUST(fallocate(fd, 0, at, n));
		break;
	case 2:
		if (rnd() % 8 == 0) {
			MUST(ftruncate(fd, AREA_SIZE - rnd() % (AREA_SIZE / 2)));
			MUST(ftruncate(fd, AREA_SIZE));
		}
		break;
	default:
		scribble(data, sizeof(data));
		MUST(pwrite(fd, data, 1 + rnd() % sizeof(data), at + rnd() % PAGE));
		break;
	}
}

static void step_file(unsigned w)
{
	(void)w;
	change_file();
	pause_us(200);
}

static void setup_file_only(void)
{
	fd = content_memfd("stress", AREA_SIZE);
}

#define SPARSE (16 * AREA_SIZE)
#define EVERY  (SPARSE / 16)

static blkcnt_t blocks(void)
{
	struct stat st;

	MUST(fstat(fd, &st));
	return st.st_blocks;
}

static blkcnt_t at_first;

/* Sixteen pages in much room, mapped shared and private. */
static void setup_sparse(void)
{
	fd = (int)MUST(memfd_create("sparse", MFD_CLOEXEC));
	MUST(ftruncate(fd, SPARSE));
	area(0, MAP_SHARED, fd, SPARSE);
	area(1, MAP_PRIVATE, fd, SPARSE);
	for (size_t i = 0; i < SPARSE; i += EVERY)
		area_at(0)[i] = 1;
	at_first = blocks();
}

static void step_sparse(unsigned w)
{
	(void)w;
	*(volatile uint32_t *)(area_at(rnd() % 2) + rnd() % 16 * EVERY) += 1;
	if (blocks() != at_first) {
		errno = ENOSPC;
		must(-1, "holes of a file were filled");
	}
	pause_us(200);
}

/* --- private mappings ------------------------------------------------------------------------------ */

static void setup_private_memfd(void)
{
	fd = content_memfd("private", AREA_SIZE);
	area(0, MAP_PRIVATE, fd, AREA_SIZE);
}

static void setup_private_file(void)
{
	char name[] = "/var/tmp/ferry-stress-XXXXXX", page[PAGE];

	fd = (int)MUST(mkostemp(name, O_CLOEXEC));
	unlink(name); /* as large as a deleted file may be */
	for (size_t i = 0; i < (1ul << 20) / PAGE; i++) {
		memset(page, (int)(i | 1), sizeof(page));
		MUST(pwrite(fd, page, PAGE, (off_t)(i * PAGE)));
	}
	area(0, MAP_PRIVATE, fd, 1ul << 20);
}

static void change_private(size_t size)
{
	char *p = area_at(0);

	for (int i = 0; i < 4; i++)
		*(volatile uint32_t *)next_page(p, size) += 1;
	MUST(madvise(p + rnd() % (size / PAGE - 4) * PAGE, (1 + rnd() % 4) * PAGE, MADV_DONTNEED));
	for (int i = 0; i < 4; i++)
		(void)*(volatile uint32_t *)next_page(p, size);
	if (rnd() % 64 == 0) { /* private copies beyond the end are dropped */
		MUST(ftruncate(fd, (off_t)(size - rnd() % (size / 2))));
		MUST(ftruncate(fd, (off_t)size));
	}
	pause_us(200);
}

static void step_private_memfd(unsigned w)
{
	(void)w;
	change_private(AREA_SIZE);
}

static void step_private_file(unsigned w)
{
	(void)w;
	change_private(1ul << 20);
}

const struct way ways_shared[] = {
	{"two-mappings", 1, setup_two, step_two, NULL},
	{"brief-mappings", 1, setup_brief, step_brief, NULL},
	{"outsider", 1, setup_memfd, step_nothing, outsider},
	{"file", 1, setup_memfd, step_file, NULL},
	{"file-only", 1, setup_file_only, step_file, NULL},
	{"sparse", 1, setup_sparse, step_sparse, NULL},
	{"private-memfd", 1, setup_private_memfd, step_private_memfd, NULL},
	{"private-file", 1, setup_private_file, step_private_file, NULL},
	{0},
};
