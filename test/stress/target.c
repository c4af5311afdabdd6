/* SPDX-License-Identifier: Apache-2.0 */
/*	stress-target [--cgroup DIR] WAY
 *	stress-target --helper WAY PID */
#include "ways.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static char program[4096];
static const struct way *way;
static unsigned slower = 1; /* STRESS_PAUSE: pauses are so many times longer */

void skip(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(CONTROL->skip, sizeof(CONTROL->skip), fmt, ap);
	va_end(ap);
	CONTROL->magic = CONTROL_MAGIC;
	for (;;)
		pause();
}

long must(long r, const char *what)
{
	if (r == -1) {
		snprintf(CONTROL->died, sizeof(CONTROL->died), "%s: %s", what, strerror(errno));
		pause();
		_exit(70);
	}
	return r;
}

char *area_at(unsigned i)
{
	return (char *)0x20000000000ull + i * (256ul << 20);
}

char *area(unsigned i, int flags, int fd, size_t size)
{
	char *p = (char *)MUST(mmap(area_at(i), size, PROT_READ | PROT_WRITE,
				    flags | MAP_FIXED | (fd < 0 ? MAP_ANONYMOUS : 0), fd, 0));

	madvise(p, size, MADV_NOHUGEPAGE);
	return p;
}

uint32_t rnd(void)
{
	static _Thread_local uint64_t state;

	if (!state)
		state = (uint64_t)syscall(SYS_gettid) * 0x9e3779b97f4a7c15ull | 1;
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return (uint32_t)(state >> 16);
}

char *next_page(char *area, size_t size)
{
	static _Thread_local uint32_t i;

	return area + ++i * 1237ul % (size / PAGE) * PAGE;
}

int content_memfd(const char *name, size_t size)
{
	int fd = (int)MUST(memfd_create(name, MFD_CLOEXEC));
	static char page[PAGE];

	for (size_t i = 0; i < size / PAGE; i++) {
		memset(page, (int)(i | 1), sizeof(page));
		MUST(pwrite(fd, page, PAGE, (off_t)(i * PAGE)));
	}
	return fd;
}

void scribble(char *p, size_t n)
{
	for (size_t i = 0; i + 8 <= n; i += 8)
		*(volatile uint64_t *)(p + i) = (uint64_t)rnd() << 32 | rnd();
}

void pause_us(unsigned us)
{
	const uint64_t ns = us * 1000ull * slower;
	const struct timespec t = {(time_t)(ns / 1000000000), (long)(ns % 1000000000)};

	nanosleep(&t, NULL);
}

const char *program_path(void)
{
	return program;
}

static const struct way *find(const char *name)
{
	static const struct way *const all[] = {ways_stores,  ways_kernel, ways_rings,   ways_others,
						ways_shared,  ways_sure,   ways_maps,    ways_advice,
						ways_hugetlb, ways_procs,  ways_pressure};

	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
		for (const struct way *w = all[i]; w->name; w++)
			if (!strcmp(w->name, name))
				return w;
	return NULL;
}

static void *writer(void *arg)
{
	unsigned n = (unsigned)(uintptr_t)arg;

	for (;;) {
		way->step(n);
		atomic_fetch_add(&CONTROL->steps[n], 1);
	}
	return NULL;
}

static void helper(pid_t target)
{
	CONTROL->writers = 1;
	CONTROL->magic = CONTROL_MAGIC;
	for (;;) {
		while (atomic_load(&CONTROL->pause)) {
			atomic_store(&CONTROL->paused, 1);
			pause_us(100);
		}
		atomic_store(&CONTROL->paused, 0);
		if (atomic_load(&CONTROL->pause))
			continue;
		way->helper(target);
		atomic_fetch_add(&CONTROL->steps[0], 1);
	}
}

static void join_cgroup(const char *dir)
{
	char path[4200];

	snprintf(path, sizeof(path), "%s/cgroup.procs", dir);
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	if (fd < 0 || write(fd, "0", 1) != 1)
		skip("cannot enter the cgroup %s: %s", dir, strerror(errno));
	close(fd);
}

int main(int argc, char **argv)
{
	bool is_helper = argc == 4 && !strcmp(argv[1], "--helper");
	const char *cgroup = argc == 4 && !strcmp(argv[1], "--cgroup") ? argv[2] : NULL;
	const char *name = is_helper ? argv[2] : argv[argc - 1];

	if (getenv("STRESS_PAUSE"))
		slower = (unsigned)atoi(getenv("STRESS_PAUSE"));
	way = argc > 1 ? find(name) : NULL;
	if (!way) {
		dprintf(2, "stress-target: no such way\n");
		return 2;
	}
	program[MUST(readlink("/proc/self/exe", program, sizeof(program) - 1))] = 0;
	setsid();
	MUST(mmap(CONTROL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE,
		  -1, 0));
	CONTROL->fd = -1;
	if (is_helper)
		helper(atoi(argv[3]));
	if (cgroup)
		join_cgroup(cgroup);
	if (way->setup)
		way->setup();
	CONTROL->writers = way->writers;
	for (unsigned i = 1; i < way->writers; i++) {
		pthread_t t;

		errno = pthread_create(&t, NULL, writer, (void *)(uintptr_t)i);
		MUST(errno ? -1 : 0);
	}
	CONTROL->magic = CONTROL_MAGIC;
	writer(NULL);
	return 1;
}
