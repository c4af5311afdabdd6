/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A program to be moved:  bench-prog SIZE_MIB RATE_MIB_S [thp] [seq] [touch] [shared]
 * One thread rewrites random pages of SIZE_MIB at RATE_MIB_S (0: as fast as it can), checking the old content
 * of each. Another stamps CLOCK_MONOTONIC every millisecond and keeps the longest gap between two stamps:
 * that is what the program missed of its life.  thp: huge pages.  seq: pages in their order.  touch: only one
 * word of each page is written, and nothing checked, so that the cost of the first write to a page shows.
 * shared: the memory is mapped MAP_SHARED.
 */
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "stats.h"

#define PAGE 4096UL

_Static_assert(sizeof(struct stats) <= PAGE, "one page");

static struct stats *stats;
static bool sequential, touch_only;

/* Keep the longest gaps, in no order. */
static void keep(uint64_t begin, uint64_t end)
{
	struct stats_gap *g = stats->gaps, *least = g;

	if (stats->n_gaps < STATS_GAPS) {
		g[stats->n_gaps++] = (struct stats_gap){begin, end};
		return;
	}
	for (size_t i = 1; i < STATS_GAPS; i++)
		if (g[i].end - g[i].begin < least->end - least->begin)
			least = &g[i];
	if (least->end - least->begin < end - begin)
		*least = (struct stats_gap){begin, end};
}

static void *stamp(void *arg)
{
	struct timespec ms = {.tv_nsec = 1000000};
	uint64_t last = now_ns();

	(void)arg;
	for (;;) {
		uint64_t now, wanted = atomic_load(&stats->reset_wanted);

		nanosleep(&ms, NULL);
		now = now_ns();
		if (wanted != atomic_load(&stats->reset_done)) {
			atomic_store(&stats->longest_ns, 0);
			atomic_store(&stats->over_5ms, 0);
			atomic_store(&stats->over_20ms, 0);
			atomic_store(&stats->written_at_reset, atomic_load(&stats->written));
			atomic_store(&stats->since_ns, now);
			stats->n_gaps = 0;
			atomic_store(&stats->reset_done, wanted);
		}
		if (now - last > 1500000)
			keep(last, now);
		if (now - last > atomic_load(&stats->longest_ns)) {
			atomic_store(&stats->longest_ns, now - last);
			atomic_store(&stats->longest_at_ns, now);
		}
		atomic_fetch_add(&stats->over_5ms, now - last > 5000000);
		atomic_fetch_add(&stats->over_20ms, now - last > 20000000);
		atomic_store(&stats->last_ns, last = now);
	}
	return NULL;
}

/* A page is filled with a sequence that its number and version give. */
static uint64_t word(uint64_t page, uint32_t version, uint64_t i)
{
	return (page << 32 | version) * 0x9e3779b97f4a7c15 + i * 0xd6e8feb86659fd93;
}

static void fill(uint64_t *p, uint64_t page, uint32_t version)
{
	uint64_t first = word(page, version, 0);

	for (uint64_t i = 0; i < PAGE / 8; i++)
		p[i] = first + i * 0xd6e8feb86659fd93;
}

static void rewrite(uint64_t *memory, uint32_t *versions, uint64_t page)
{
	uint64_t *p = memory + page * PAGE / 8;

	if (p[0] != word(page, versions[page], 0) ||
	    p[PAGE / 8 - 1] != word(page, versions[page], PAGE / 8 - 1))
		atomic_fetch_add(&stats->wrong, 1);
	fill(p, page, ++versions[page]);
}

static bool word_of(int argc, char **argv, const char *word)
{
	for (int i = 3; i < argc; i++)
		if (!strcmp(argv[i], word))
			return true;
	return false;
}

/* The number of the next page. */
static uint64_t next_page(uint64_t pages)
{
	static uint64_t random = 88172645463325252, page;

	if (sequential) {
		page = page + 1 == pages ? 0 : page + 1;
		return page;
	}
	random ^= random << 13;
	random ^= random >> 7;
	random ^= random << 17;
	return (random >> 20) % pages;
}

static void work(uint64_t *memory, uint32_t *versions, uint64_t pages, uint64_t rate)
{
	uint64_t last = now_ns(), due = 0; /* due: bytes */
	struct timespec ms = {.tv_nsec = 1000000};

	for (;;) {
		uint64_t now = now_ns(), n;

		due += (now - last) * rate / 1000000000;
		last = now;
		if (due > rate / 50) /* no more than 20 ms are made up for */
			due = rate / 50;
		n = rate ? due / PAGE : 64;
		due -= rate ? n * PAGE : 0;
		for (uint64_t i = 0; i < n; i++) {
			uint64_t page = next_page(pages);

			if (touch_only)
				((volatile uint64_t *)memory)[page * PAGE / 8] = last + i;
			else
				rewrite(memory, versions, page);
		}
		atomic_fetch_add(&stats->written, n * PAGE);
		if (rate)
			nanosleep(&ms, NULL);
	}
}

static void *map(void *where, uint64_t size, int flags)
{
	void *p = mmap(where, size, PROT_READ | PROT_WRITE,
		       flags | MAP_ANONYMOUS | (where ? MAP_FIXED_NOREPLACE : 0), -1, 0);

	if (p == MAP_FAILED) {
		perror("mmap");
		exit(1);
	}
	return p;
}

int main(int argc, char **argv)
{
	uint64_t size, rate;
	uint64_t *memory;
	uint32_t *versions;
	pthread_t thread;

	if (argc < 3) {
		fprintf(stderr, "usage: bench-prog SIZE_MIB RATE_MIB_S [thp] [seq] [touch] [shared]\n");
		return 2;
	}
	size = strtoull(argv[1], NULL, 10) << 20;
	rate = strtoull(argv[2], NULL, 10) << 20;
	if (!size)
		return 2;
	sequential = word_of(argc, argv, "seq");
	touch_only = word_of(argc, argv, "touch");
	stats = map((void *)STATS_ADDRESS, PAGE, MAP_PRIVATE);
	/* Ferry in a pid namespace of its own is only sure of what is younger than the process
	 * (state/memory/sure.c), and start times are told in hundredths of a second. */
	if (word_of(argc, argv, "shared"))
		usleep(30000);
	memory = map(NULL, size, word_of(argc, argv, "shared") ? MAP_SHARED : MAP_PRIVATE);
	versions = map(NULL, size / PAGE * sizeof(*versions), MAP_PRIVATE);
	madvise(memory, size, word_of(argc, argv, "thp") ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
	for (uint64_t page = 0; page < size / PAGE; page++)
		fill(memory + page * PAGE / 8, page, 0);
	stats->size = size;
	stats->magic = STATS_MAGIC;
	if (pthread_create(&thread, NULL, stamp, NULL))
		return 1;
	work(memory, versions, size / PAGE, rate);
}
