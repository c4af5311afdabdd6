/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A tree to be moved:  bench-tree PROCESSES THREADS MIB
 * The root and its PROCESSES - 1 children have THREADS threads and MIB of memory of their own each. Every
 * thread counts up a counter of its own every 50 ms, in memory that all share.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <signal.h>
#include <unistd.h>

#include "stats.h"

static struct tree_stats *stats;

static void *tick(void *counter)
{
	for (;;) {
		atomic_fetch_add((_Atomic uint64_t *)counter, 1);
		usleep(50000);
	}
	return NULL;
}

static void run(unsigned process, unsigned threads, size_t memory)
{
	pthread_t thread;
	char *p = malloc(memory);

	for (size_t i = 0; p && i < memory; i += 64)
		p[i] = (char)(i + process);
	for (unsigned i = 1; i < threads; i++)
		if (pthread_create(&thread, NULL, tick, (void *)&stats->ticks[process * threads + i]))
			_exit(1);
	tick((void *)&stats->ticks[process * threads]);
}

int main(int argc, char **argv)
{
	unsigned processes = argc > 1 ? (unsigned)atoi(argv[1]) : 0,
		 threads = argc > 2 ? (unsigned)atoi(argv[2]) : 0;
	size_t memory = argc > 3 ? strtoul(argv[3], NULL, 10) << 20 : 0;

	if (!processes || !threads || processes * threads > TREE_THREADS || !memory) {
		fprintf(stderr, "usage: bench-tree PROCESSES THREADS MIB\n");
		return 2;
	}
	stats = mmap((void *)STATS_ADDRESS, sizeof(*stats), PROT_READ | PROT_WRITE,
		     MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
	if (stats == MAP_FAILED) {
		perror("mmap");
		return 1;
	}
	stats->threads = processes * threads;
	for (unsigned i = 1; i < processes; i++)
		switch (fork()) {
		case 0:
			run(i, threads, memory);
			break;
		case -1:
			perror("fork");
			kill(0, SIGKILL);
		}
	stats->magic = STATS_MAGIC;
	run(0, threads, memory);
}
