/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Says when the whole machine stood still:  bench-witness FILE   (ends with SIGTERM, then writes)
 * A thread of real-time priority on every CPU stamps the monotonic clock every millisecond. No program can
 * keep all of them from it at once; a hypervisor can, when it gives the virtual machine no time on any CPU.
 * FILE gets one line per such time: its begin and end in nanoseconds of CLOCK_MONOTONIC.
 */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "stats.h"

#define MAX_CPUS 64
#define MAX_GAPS 65536
#define LATE_NS  2000000 /* of a stamp that should come after 1 ms */
#define PRIORITY 50

struct gap {
	uint64_t begin, end;
};

static struct witness {
	pthread_t thread;
	struct gap *gaps;
	size_t n;
} witnesses[MAX_CPUS];
static atomic_bool enough;

static void *watch(void *arg)
{
	struct witness *w = arg;
	struct timespec ms = {.tv_nsec = 1000000};
	uint64_t last = now_ns();

	while (!atomic_load(&enough)) {
		nanosleep(&ms, NULL);
		uint64_t now = now_ns();

		if (now - last > LATE_NS && w->n < MAX_GAPS)
			w->gaps[w->n++] = (struct gap){last, now};
		last = now;
	}
	return NULL;
}

static int start(struct witness *w, int cpu)
{
	struct sched_param priority = {.sched_priority = PRIORITY};
	pthread_attr_t attr;
	cpu_set_t set;

	w->gaps = calloc(MAX_GAPS, sizeof(*w->gaps));
	if (!w->gaps)
		return ENOMEM;
	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	pthread_attr_init(&attr);
	pthread_attr_setaffinity_np(&attr, sizeof(set), &set);
	pthread_attr_setinheritsched(&attr, PTHREAD_EXPLICIT_SCHED);
	pthread_attr_setschedpolicy(&attr, SCHED_FIFO);
	pthread_attr_setschedparam(&attr, &priority);
	int r = pthread_create(&w->thread, &attr, watch, w);

	pthread_attr_destroy(&attr);
	return r;
}

/* What is in both; @a becomes that. */
static void common(struct witness *a, const struct witness *b)
{
	struct gap *both = calloc(MAX_GAPS, sizeof(*both));
	size_t n = 0;

	for (size_t i = 0, j = 0; both && i < a->n && j < b->n && n < MAX_GAPS;) {
		uint64_t begin = a->gaps[i].begin > b->gaps[j].begin ? a->gaps[i].begin : b->gaps[j].begin;
		uint64_t end = a->gaps[i].end < b->gaps[j].end ? a->gaps[i].end : b->gaps[j].end;

		if (begin < end)
			both[n++] = (struct gap){begin, end};
		if (a->gaps[i].end < b->gaps[j].end)
			i++;
		else
			j++;
	}
	free(a->gaps);
	a->gaps = both;
	a->n = n;
}

int main(int argc, char **argv)
{
	int cpus = 0, sig;
	sigset_t stop;
	cpu_set_t usable;

	if (argc != 2) {
		fprintf(stderr, "usage: bench-witness FILE\n");
		return 2;
	}
	sigemptyset(&stop);
	sigaddset(&stop, SIGTERM);
	sigprocmask(SIG_BLOCK, &stop, NULL);
	mlockall(MCL_CURRENT | MCL_FUTURE);
	sched_getaffinity(0, sizeof(usable), &usable);
	for (int cpu = 0; cpu < CPU_SETSIZE && cpus < MAX_CPUS; cpu++) {
		if (!CPU_ISSET(cpu, &usable))
			continue;
		int r = start(&witnesses[cpus++], cpu);

		if (r) {
			fprintf(stderr, "bench-witness: no real-time thread on CPU %d: %s\n", cpu,
				strerror(r));
			return 1;
		}
	}
	sigwait(&stop, &sig);
	atomic_store(&enough, true);
	for (int i = 0; i < cpus; i++)
		pthread_join(witnesses[i].thread, NULL);
	for (int i = 1; i < cpus; i++)
		common(&witnesses[0], &witnesses[i]);

	FILE *f = fopen(argv[1], "w");

	for (size_t i = 0; f && i < witnesses[0].n; i++)
		fprintf(f, "%llu %llu\n", (unsigned long long)witnesses[0].gaps[i].begin,
			(unsigned long long)witnesses[0].gaps[i].end);
	return f && fclose(f) == 0 ? 0 : 1;
}
