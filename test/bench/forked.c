/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A pre-forking server to be moved:  bench-forked MIB CHILDREN
 * CHILDREN share MIB of memory with their parent; each writes a page of its own in every MiB. All tick, in
 * memory that all share, and look through some of their memory meanwhile.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "stats.h"

#define PAGE 4096UL
#define MIB  (1UL << 20)

static struct tree_stats *stats;
static char *memory;
static size_t size;

static uint64_t value(size_t page, unsigned who)
{
	return page % 256 == who ? 1000000 * (uint64_t)who + page : page;
}

static void run(unsigned who)
{
	for (size_t i = who; who && i < size / PAGE; i += 256)
		*(uint64_t *)(memory + i * PAGE) = value(i, who);
	__atomic_fetch_add(&stats->threads, 1, __ATOMIC_SEQ_CST);
	for (size_t i = 0;; i = (i + 997) % (size / PAGE)) {
		if (*(uint64_t *)(memory + i * PAGE) != value(i, who))
			_exit(1); /* stops ticking */
		stats->ticks[who]++;
		usleep(50000);
	}
}

int main(int argc, char **argv)
{
	unsigned children = argc > 2 ? (unsigned)atoi(argv[2]) : 0;

	size = argc > 1 ? strtoul(argv[1], NULL, 10) * MIB : 0;
	if (!size || !children || children > 255) {
		fprintf(stderr, "usage: bench-forked MIB CHILDREN\n");
		return 2;
	}
	memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	stats = mmap((void *)STATS_ADDRESS, sizeof(*stats), PROT_READ | PROT_WRITE,
		     MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
	if (stats == MAP_FAILED || memory == MAP_FAILED) {
		perror("mmap");
		return 1;
	}
	for (size_t i = 0; i < size / PAGE; i++)
		for (size_t j = 0; j < PAGE; j += 64)
			*(uint64_t *)(memory + i * PAGE + j) = i;
	for (unsigned i = 1; i <= children; i++)
		switch (fork()) {
		case 0:
			run(i);
			break;
		case -1:
			perror("fork");
			kill(0, SIGKILL);
		}
	while (stats->threads < children)
		usleep(1000);
	stats->magic = STATS_MAGIC;
	run(0);
}
