/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A program that is large in one way.
 *
 *   bench-scale vmas N
 *   bench-scale sparse KIND GIB PAGES
 *   bench-scale naive KIND GIB PAGES
 *   bench-scale hole GIB MIB
 *   bench-scale descriptors N
 *   bench-scale threads N
 *
 * vmas: N mappings of one page, every second one written to.
 *
 * sparse: one mapping with single pages in it. KIND is anon, shmem, or the path of a file, which is made
 * without blocks and mapped privately.
 *
 * naive: the same, then protects all of it by one UFFDIO_WRITEPROTECT, like a tracker that does not ask what
 * is populated; says what that cost, and ends.
 *
 * hole: one mapping, not reserved, with pieces of 4 MiB in it.
 *
 * descriptors: N open files, counters, pipes and pairs of sockets, as many of each.
 *
 * threads: N threads that wait.
 *
 * A thread looks at the pages one after the other, for ever, and counts those that are not as they were
 * written.
 */
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <linux/userfaultfd.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "stats.h"

#define PAGE 4096UL
/* Newer than the headers of some distributions. */
#define WP_UNPOPULATED (1ull << 13)
#define WP_ASYNC       (1ull << 15)
#define PIECE          (4UL << 20)

static struct stats *stats;
static uint64_t **pages; /* those that were written */
static size_t n_pages;

static void *map(size_t size, int prot, int flags, int fd)
{
	void *p = mmap(NULL, size, prot, flags, fd, 0);

	if (p == MAP_FAILED) {
		perror("bench-scale: mmap");
		exit(1);
	}
	return p;
}

static void touch(char *p)
{
	uint64_t *word = (uint64_t *)p;

	*word = (uintptr_t)p * 0x9e3779b97f4a7c15;
	pages[n_pages++] = word;
}

static void room_for(size_t n)
{
	pages = map(n * sizeof(*pages), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
}

static void make_vmas(size_t n)
{
	char *p = map(n * PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1);

	room_for(n / 2 + 1);
	for (size_t i = 0; i < n; i += 2) {
		if (mprotect(p + i * PAGE, PAGE, PROT_READ | PROT_WRITE) < 0) {
			perror("bench-scale: mprotect");
			exit(1);
		}
		touch(p + i * PAGE);
	}
}

static char *make_sparse(const char *kind, size_t size, size_t n)
{
	int fd = -1, flags = MAP_PRIVATE | MAP_ANONYMOUS;

	if (!strcmp(kind, "shmem"))
		flags = MAP_SHARED | MAP_ANONYMOUS;
	if (*kind == '/') {
		flags = MAP_PRIVATE;
		fd = open(kind, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
		if (fd < 0 || ftruncate(fd, (off_t)size) < 0) {
			perror("bench-scale: file");
			exit(1);
		}
	}
	char *p = map(size, PROT_READ | PROT_WRITE, flags | MAP_NORESERVE, fd);

	if (fd >= 0)
		close(fd);
	madvise(p, size, MADV_NOHUGEPAGE);
	room_for(n);
	for (size_t i = 0; i < n; i++)
		touch(p + i * (size / n) / PAGE * PAGE);
	return p;
}

static unsigned long page_tables_kib(void)
{
	char line[256];
	unsigned long kib = 0;
	FILE *f = fopen("/proc/self/status", "r");

	while (f && fgets(line, sizeof(line), f))
		sscanf(line, "VmPTE: %lu", &kib);
	if (f)
		fclose(f);
	return kib;
}

static int arm_naively(char *p, size_t size)
{
	int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC);
	struct uffdio_api api = {.api = UFFD_API, .features = WP_ASYNC | WP_UNPOPULATED};
	struct uffdio_register reg = {.range = {(uintptr_t)p, size}, .mode = UFFDIO_REGISTER_MODE_WP};
	struct uffdio_writeprotect wp = {.range = {(uintptr_t)p, size}, .mode = UFFDIO_WRITEPROTECT_MODE_WP};
	unsigned long before = page_tables_kib();

	if (fd < 0 || ioctl(fd, UFFDIO_API, &api) < 0 || ioctl(fd, UFFDIO_REGISTER, &reg) < 0) {
		perror("bench-scale: userfaultfd");
		return 1;
	}
	uint64_t t0 = now_ns();

	if (ioctl(fd, UFFDIO_WRITEPROTECT, &wp) < 0) {
		perror("bench-scale: UFFDIO_WRITEPROTECT");
		return 1;
	}
	printf("arm_ms=%.3f pte_before_kib=%lu pte_after_kib=%lu\n", (double)(now_ns() - t0) / 1e6, before,
	       page_tables_kib());
	return 0;
}

static void make_hole(size_t size, size_t used)
{
	char *p = map(size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1);
	size_t pieces = used / PIECE;

	madvise(p, size, MADV_NOHUGEPAGE);
	room_for(used / PAGE);
	for (size_t i = 0; i < pieces; i++)
		for (size_t k = 0; k < PIECE; k += PAGE)
			touch(p + i * (size / pieces / PAGE * PAGE) + k);
}

static void one_page(void)
{
	room_for(1);
	touch(map(PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1));
}

static void must(int r, const char *what)
{
	if (r >= 0)
		return;
	fprintf(stderr, "bench-scale: ");
	perror(what);
	exit(1);
}

/* Six of each turn. */
static void make_descriptors(size_t n)
{
	struct rlimit limit = {n + 64, n + 64}, now;
	int two[2];

	must(getrlimit(RLIMIT_NOFILE, &now), "limit");
	if (now.rlim_max > limit.rlim_max)
		limit.rlim_max = now.rlim_max;
	must(setrlimit(RLIMIT_NOFILE, &limit), "limit of descriptors");
	for (size_t i = 0; i + 6 <= n; i += 6) {
		must(open("/dev/null", O_RDWR | O_CLOEXEC), "/dev/null");
		must(eventfd((unsigned)i, EFD_CLOEXEC), "eventfd");
		must(pipe(two), "pipe");
		must(socketpair(AF_UNIX, SOCK_STREAM, 0, two), "socketpair");
	}
	one_page();
}

static void *idle(void *p)
{
	for (;;)
		pause();
	return p;
}

static void make_threads(size_t n)
{
	pthread_attr_t small;
	pthread_t t;

	pthread_attr_init(&small);
	pthread_attr_setstacksize(&small, 64 << 10);
	for (size_t i = 1; i < n; i++)
		must(-pthread_create(&t, &small, idle, NULL), "thread");
	one_page();
}

static void look(void)
{
	struct timespec ms = {.tv_nsec = 1000000};

	for (size_t i = 0;; i = (i + 1) % n_pages) {
		if (*pages[i] != (uintptr_t)pages[i] * 0x9e3779b97f4a7c15)
			atomic_fetch_add(&stats->wrong, 1);
		if (i % 64 == 0) {
			atomic_store(&stats->last_ns, now_ns());
			nanosleep(&ms, NULL);
		}
	}
}

int main(int argc, char **argv)
{
	stats = mmap((void *)STATS_ADDRESS, sizeof(*stats), PROT_READ | PROT_WRITE,
		     MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
	if (stats == MAP_FAILED)
		return 1;
	if (argc == 3 && !strcmp(argv[1], "vmas"))
		make_vmas(strtoul(argv[2], NULL, 10));
	else if (argc == 5 && !strcmp(argv[1], "sparse"))
		make_sparse(argv[2], strtoul(argv[3], NULL, 10) << 30, strtoul(argv[4], NULL, 10));
	else if (argc == 5 && !strcmp(argv[1], "naive"))
		return arm_naively(
			make_sparse(argv[2], strtoul(argv[3], NULL, 10) << 30, strtoul(argv[4], NULL, 10)),
			strtoul(argv[3], NULL, 10) << 30);
	else if (argc == 4 && !strcmp(argv[1], "hole"))
		make_hole(strtoul(argv[2], NULL, 10) << 30, strtoul(argv[3], NULL, 10) << 20);
	else if (argc == 3 && !strcmp(argv[1], "descriptors"))
		make_descriptors(strtoul(argv[2], NULL, 10));
	else if (argc == 3 && !strcmp(argv[1], "threads"))
		make_threads(strtoul(argv[2], NULL, 10));
	if (!n_pages) {
		fprintf(stderr, "usage: bench-scale vmas|descriptors|threads N | sparse|naive "
				"anon|shmem|PATH GIB PAGES "
				"| hole GIB MIB\n");
		return 2;
	}
	stats->magic = STATS_MAGIC;
	look();
}
