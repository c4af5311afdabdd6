/* SPDX-License-Identifier: Apache-2.0 */
/* Shared memory, most of it such that nobody has a descriptor of: what mappings tell is believed after a
 * while (state/memory/sure.c). Each way does now and then what must end that. */
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "ways.h"

/* Only the first half is written all the time: what is lost in the other one stays lost. */
static void store_often(void)
{
	volatile uint32_t *p = (volatile uint32_t *)(next_page(area_at(1), AREA_SIZE / 2) + rnd() % 1000 * 4);

	*p = *p + 1;
}

/* Into a mapping of the same memory. */
static void store_seldom(char *mapping)
{
	for (int i = 0; i < 4; i++) {
		volatile uint32_t *p =
			(volatile uint32_t *)(mapping + AREA_SIZE / 2 + rnd() % (AREA_PAGES / 2) * PAGE +
					      rnd() % 1000 * 4);

		*p = *p + 1;
	}
}

/* After a fork the pages of a process are its own again when it writes them; by some that are, and stay
 * unwritten, ferry sees that there was no other fork (state/memory/forks.c). */
static void own_pages_again(void)
{
	for (unsigned i = 2; i < 6; i++)
		*(volatile char *)area_at(i) += 1;
}

static void setup_one(void)
{
	memset(area(1, MAP_SHARED, -1, AREA_SIZE), 1, AREA_SIZE);
	for (unsigned i = 2; i < 6; i++)
		area(i, MAP_PRIVATE, -1, PAGE);
	own_pages_again();
}

static void setup_anon(void)
{
	setup_one();
	pid_t pid = (pid_t)MUST(syscall(SYS_fork));

	own_pages_again();
	if (pid == 0)
		for (;; pause_us(200))
			store_often();
}

static void step_anon(unsigned w)
{
	(void)w;
	store_often();
	pause_us(200);
}

/* A second mapping of area 1, made by mremap. */
static void by_mremap(char *p)
{
	MUST(p);
	store_seldom(p);
	MUST(munmap(p, AREA_SIZE));
}

static void by_brief_child(void)
{
	pid_t pid = (pid_t)MUST(syscall(SYS_fork));

	if (pid == 0) {
		store_seldom(area_at(1));
		_exit(0);
	}
	MUST(waitpid(pid, NULL, 0));
	own_pages_again();
}

/* A page is taken away, and comes again, empty, by a load. */
static void by_remove(void)
{
	volatile char *p = area_at(1) + AREA_SIZE / 2 + rnd() % (AREA_PAGES / 2) * PAGE;

	MUST(madvise((char *)p, PAGE, MADV_REMOVE));
	(void)*p;
}

/* Long enough apart for the engine to become sure in between. */
static bool is_time(unsigned least_ms)
{
	static struct timespec next;
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	if (now.tv_sec < next.tv_sec || (now.tv_sec == next.tv_sec && now.tv_nsec < next.tv_nsec))
		return false;
	bool first = !next.tv_sec;

	next = now;
	next.tv_nsec += (least_ms + rnd() % 400) * 1000000l;
	next.tv_sec += next.tv_nsec / 1000000000;
	next.tv_nsec %= 1000000000;
	return !first;
}

static void step_anon_brief(unsigned w)
{
	step_anon(w);
	if (!is_time(120))
		return;
	switch (rnd() % 4) {
	case 0:
		by_mremap(mremap(area_at(1), 0, AREA_SIZE, MREMAP_MAYMOVE));
		break;
	case 1: /* its pages go to the second mapping, the first one stays; the C library passes a fifth
		 * argument on, whatever it is, and the kernel takes it for a wish */
		by_mremap(mremap(area_at(1), AREA_SIZE, AREA_SIZE, MREMAP_MAYMOVE | MREMAP_DONTUNMAP, NULL));
		break;
	default:
		by_brief_child();
		break;
	}
}

static void step_anon_remove(unsigned w)
{
	step_anon(w);
	if (is_time(120))
		by_remove();
}

static int segment;

static void setup_segment(void)
{
	for (unsigned i = 2; i < 6; i++)
		area(i, MAP_PRIVATE, -1, PAGE);
	own_pages_again();
	segment = (int)MUST(shmget(IPC_PRIVATE, AREA_SIZE, IPC_CREAT | 0600));
	memset((char *)MUST(shmat(segment, area_at(1), 0)), 1, AREA_SIZE);
	MUST(shmctl(segment, IPC_RMID,
		    NULL)); /* with the last of us; till then it can be attached by its id */
}

static void step_segment(unsigned w)
{
	step_anon(w);
	if (!is_time(2500))
		return;
	if (rnd() % 2) {
		by_brief_child();
		return;
	}
	char *p = (char *)MUST(shmat(segment, NULL, 0));

	store_seldom(p);
	MUST(shmdt(p));
}

/* --- memory that had a descriptor: it is opened again for a moment ----------------------------------- */

static char name[64]; /* of the file, or of a link to it */

static void map_file(int fd)
{
	MUST(ftruncate(fd, AREA_SIZE));
	memset(area(1, MAP_SHARED, fd, AREA_SIZE), 1, AREA_SIZE);
	close(fd);
	for (unsigned i = 2; i < 6; i++)
		area(i, MAP_PRIVATE, -1, PAGE);
	own_pages_again();
}

static void setup_memfd(void)
{
	map_file((int)MUST(memfd_create("shared", MFD_CLOEXEC)));
	snprintf(name, sizeof(name), "/proc/self/map_files/%lx-%lx", (unsigned long)area_at(1),
		 (unsigned long)area_at(1) + AREA_SIZE);
}

/* The driver removes it (subject.c). */
static void setup_named(void)
{
	snprintf(name, sizeof(name), STRESS_FILE, getpid());
	map_file((int)MUST(open(name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600)));
}

static void by_mapping_of(int fd)
{
	char *p = (char *)MUST(mmap(NULL, AREA_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));

	store_seldom(p);
	MUST(munmap(p, AREA_SIZE));
}

static void by_descriptor(int fd)
{
	static char data[PAGE];
	off_t at = (off_t)(AREA_SIZE / 2 + rnd() % (AREA_PAGES / 2) * PAGE);

	switch (rnd() % 4) {
	case 0:
		scribble(data, sizeof(data));
		MUST(pwrite(fd, data, 1 + rnd() % PAGE, at));
		break;
	case 1:
		MUST(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, at, PAGE));
		break;
	default:
		by_mapping_of(fd);
	}
}

static void step_opened(unsigned w)
{
	step_anon(w);
	if (!is_time(1000))
		return;
	int fd = (int)MUST(open(name, O_RDWR | O_CLOEXEC));

	by_descriptor(fd);
	close(fd);
}

/* truncate(2) opens nothing.  What it took away comes again, empty, by a load. */
static void by_truncate(void)
{
	size_t pages = 1 + rnd() % 64;

	MUST(truncate(name, (off_t)(AREA_SIZE - pages * PAGE)));
	MUST(truncate(name, AREA_SIZE));
	for (size_t i = 1; i <= pages; i++)
		(void)*(volatile char *)(area_at(1) + AREA_SIZE - i * PAGE);
}

static void step_named(unsigned w)
{
	step_anon(w);
	if (!is_time(1000))
		return;
	if (rnd() % 2) {
		by_truncate();
		return;
	}
	int fd = (int)MUST(open(name, O_RDWR | O_CLOEXEC));

	by_descriptor(fd);
	close(fd);
}

/* --- memory that has one ------------------------------------------------------------------------------ */

static int kept;

static void setup_open(void)
{
	int fd = (int)MUST(memfd_create("shared", MFD_CLOEXEC));

	kept = (int)MUST(dup(fd));
	map_file(fd);
}

static void step_open(unsigned w)
{
	step_anon(w);
	if (is_time(300))
		by_descriptor(kept);
}

const struct way ways_sure[] = {
	{"shared-anon", 1, setup_anon, step_anon, NULL},
	{"shared-brief", 1, setup_one, step_anon_brief, NULL},
	{"shared-remove", 1, setup_one, step_anon_remove, NULL},
	{"segment", 1, setup_segment, step_segment, NULL},
	{"shared-memfd", 1, setup_memfd, step_opened, NULL},
	{"shared-file", 1, setup_named, step_named, NULL},
	{"shared-open", 1, setup_open, step_open, NULL},
	{0},
};
