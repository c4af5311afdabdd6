/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads what a program under test knows about itself, from outside:
 *   bench-stat PID ready|show|reset       bench-prog: wait until it runs; print; begin a new measurement
 *   bench-stat PID show STILL [AT MS]     STILL, written by bench-witness: print the gaps also without those
 * times, and the one of the stop that began at AT (CLOCK_MONOTONIC in ms) and took MS
 *   bench-stat PID tree                   bench-tree, bench-forked: how many threads tick
 *   bench-stat PID pss                    anonymous memory of the process and its children, each page once
 */
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "stats.h"

static int memory;

static int get(void *p, size_t n, uint64_t magic)
{
	ssize_t got = pread(memory, p, n, STATS_ADDRESS);

	return got == (ssize_t)n && *(uint64_t *)p == magic ? 0 : -1;
}

static int fail(const char *what)
{
	fprintf(stderr, "bench-stat: %s\n", what);
	return 1;
}

/* How long the machine stood still in @g, by the lines of @f. */
static uint64_t still(FILE *f, const struct stats_gap *g)
{
	unsigned long long begin, end;
	uint64_t sum = 0;

	rewind(f);
	while (fscanf(f, "%llu %llu", &begin, &end) == 2) {
		begin = begin > g->begin ? begin : g->begin;
		end = end < g->end ? end : g->end;
		sum += end > begin ? end - begin : 0;
	}
	return sum;
}

/* Of the gaps that have a moment of [@from, @to) in them: the longest one, as it was and less the times in
 * which the whole machine stood still, and the most of these. */
static void longest_of(const struct stats *s, FILE *f, uint64_t from, uint64_t to, uint64_t *ret,
		       uint64_t *ret_net, uint64_t *ret_still)
{
	*ret = *ret_net = *ret_still = 0;
	for (size_t i = 0; i < s->n_gaps; i++) {
		const struct stats_gap *g = &s->gaps[i];

		if (g->end < from || g->begin >= to)
			continue;
		uint64_t off = still(f, g), gap = g->end - g->begin;

		*ret = gap > *ret ? gap : *ret;
		*ret_net = gap - off > *ret_net ? gap - off : *ret_net;
		*ret_still = off > *ret_still ? off : *ret_still;
	}
}

static int show_net(const struct stats *s, const char *path, const char *at_ms, const char *ms)
{
	FILE *f = fopen(path, "r");
	uint64_t gap, net, off;

	if (!f)
		return fail(path);
	longest_of(s, f, 0, UINT64_MAX, &gap, &net, &off);
	printf("net_ms=%.2f still_ms=%.2f ", net / 1e6, off / 1e6);
	if (at_ms && ms) {
		uint64_t at = (uint64_t)(atof(at_ms) * 1e6);

		longest_of(s, f, at, at + (uint64_t)(atof(ms) * 1e6), &gap, &net, &off);
		printf("switch_ms=%.2f switch_net_ms=%.2f ", gap / 1e6, net / 1e6);
	}
	fclose(f);
	return 0;
}

static int show(const char *still_path, const char *at_ms, const char *ms)
{
	struct stats s;
	uint64_t now = now_ns(), gap, longest;
	double seconds;

	if (get(&s, sizeof(s), STATS_MAGIC))
		return fail("this is no bench-prog");
	/* A gap that still lasts counts, too. */
	gap = now > s.last_ns ? now - s.last_ns : 0;
	longest = gap > s.longest_ns ? gap : s.longest_ns;
	seconds = (double)(s.last_ns - s.since_ns) / 1e9;
	if (still_path && show_net(&s, still_path, at_ms, ms))
		return 1;
	printf("seconds=%.3f longest_ms=%.2f over_5ms=%llu over_20ms=%llu written_mib_s=%.1f wrong=%llu\n",
	       seconds, (double)longest / 1e6, (unsigned long long)s.over_5ms,
	       (unsigned long long)s.over_20ms,
	       seconds > 0 ? (double)(s.written - s.written_at_reset) / 1048576 / seconds : 0,
	       (unsigned long long)s.wrong);
	return 0;
}

static int reset(void)
{
	uint64_t wanted;
	struct stats s;

	if (get(&s, sizeof(s), STATS_MAGIC))
		return fail("this is no bench-prog");
	wanted = s.reset_done + 1;
	if (pwrite(memory, &wanted, sizeof(wanted), STATS_ADDRESS + offsetof(struct stats, reset_wanted)) !=
	    sizeof(wanted))
		return fail(strerror(errno));
	for (int i = 0; i < 5000; i++) {
		if (!get(&s, sizeof(s), STATS_MAGIC) && s.reset_done == wanted)
			return 0;
		usleep(1000);
	}
	return fail("the program does not run");
}

static int tree(void)
{
	static struct tree_stats a, b;
	unsigned ticking = 0;

	if (get(&a, sizeof(a), STATS_MAGIC))
		return fail("this is no bench-tree");
	usleep(500000);
	if (get(&b, sizeof(b), STATS_MAGIC))
		return fail("this is no bench-tree");
	for (uint64_t i = 0; i < b.threads; i++)
		ticking += b.ticks[i] != a.ticks[i];
	printf("threads=%llu ticking=%u\n", (unsigned long long)b.threads, ticking);
	return ticking == b.threads ? 0 : 1;
}

static uint64_t pss_kib(const char *pid)
{
	char path[64], line[256];
	uint64_t kib = 0;

	snprintf(path, sizeof(path), "/proc/%s/smaps_rollup", pid);
	FILE *f = fopen(path, "r");

	while (f && fgets(line, sizeof(line), f))
		if (!strncmp(line, "Pss_Anon:", 9))
			kib = strtoull(line + 9, NULL, 10);
	if (f)
		fclose(f);
	return kib;
}

static int pss(const char *pid)
{
	char path[64], child[32];
	uint64_t kib = pss_kib(pid);

	snprintf(path, sizeof(path), "/proc/%s/task/%s/children", pid, pid);
	FILE *f = fopen(path, "r");

	if (!f)
		return fail(path);
	while (fscanf(f, "%31s", child) == 1)
		kib += pss_kib(child);
	fclose(f);
	printf("pss_mib=%.1f\n", (double)kib / 1024);
	return 0;
}

int main(int argc, char **argv)
{
	char path[64];
	const char *what = argc > 2 ? argv[2] : "";
	uint64_t magic;

	if (argc < 3 || argc > 6) {
		fprintf(stderr, "usage: bench-stat PID ready|show [STILL [AT MS]]|reset|tree|pss\n");
		return 2;
	}
	snprintf(path, sizeof(path), "/proc/%s/mem", argv[1]);
	memory = open(path, O_RDWR | O_CLOEXEC);
	if (memory < 0)
		return fail(strerror(errno));
	if (!strcmp(what, "ready")) {
		for (int i = 0; i < 120000; i++) {
			if (!get(&magic, sizeof(magic), STATS_MAGIC))
				return 0;
			usleep(1000);
		}
		return fail("it does not become ready");
	}
	return !strcmp(what, "show")    ? show(argv[3], argc > 4 ? argv[4] : NULL, argc > 5 ? argv[5] : NULL)
	       : !strcmp(what, "reset") ? reset()
	       : !strcmp(what, "tree")  ? tree()
	       : !strcmp(what, "pss")   ? pss(argv[1])
					: 2;
}
