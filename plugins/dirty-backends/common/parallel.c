/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One scan by several threads.  The walk takes the memory's lock for reading only, so they do not wait for
 * each other; what each finds is told afterwards, in order.  Worth it while the target stands: its end is
 * what is waited for, and the processors it used are free.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include "pages.h"

#define HUGE       (512 * PAGE)
#define WORTH_IT   (512ull << 20) /* bytes for each thread: some 0.4 ms, a thread costs a tenth of that */
#define MOST_PARTS 16

struct part {
	int pagemap, result;
	struct scan scan;
	struct region *v;
	size_t n, cap;
	pthread_t thread;
	bool started;
};

static int keep(void *ctx, const struct region *r)
{
	struct part *p = ctx;

	if (p->n == p->cap) {
		size_t cap = p->cap ? 2 * p->cap : 256;
		struct region *v = realloc(p->v, cap * sizeof(*v));

		if (!v)
			return -ENOMEM;
		p->v = v;
		p->cap = cap;
	}
	p->v[p->n++] = *r;
	return 0;
}

static void *run(void *arg)
{
	struct part *p = arg;

	p->result = pages_scan(p->pagemap, &p->scan, keep, p);
	return NULL;
}

/* Signals are for the thread that called us. What cannot get a thread is done by this one. */
static void run_all(struct part *parts, unsigned n)
{
	sigset_t all, old;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	for (unsigned i = 1; i < n; i++)
		parts[i].started = pthread_create(&parts[i].thread, NULL, run, &parts[i]) == 0;
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	run(&parts[0]);
	for (unsigned i = 1; i < n; i++)
		if (parts[i].started)
			pthread_join(parts[i].thread, NULL);
		else
			run(&parts[i]);
}

unsigned pages_scan_parts(uint64_t length)
{
	uint64_t n = length / WORTH_IT;

	if (n < 2)
		return 1;
	long cpus = sysconf(_SC_NPROCESSORS_ONLN); /* opens a file */

	n = n > MOST_PARTS ? MOST_PARTS : n;
	return cpus > 0 && n > (uint64_t)cpus ? (unsigned)cpus : (unsigned)n;
}

int pages_scan_split(int pagemap, const struct scan *s, unsigned n, scan_each each, void *ctx)
{
	struct part parts[MOST_PARTS] = {0};
	int r = 0;

	n = n > MOST_PARTS ? MOST_PARTS : n;
	uint64_t length = n ? (s->end - s->start) / n & ~(HUGE - 1) : 0;

	if (n < 2 || !length || s->max_pages)
		return pages_scan(pagemap, s, each, ctx);
	uint64_t first = (s->start + HUGE - 1) & ~(HUGE - 1); /* borders do not cut a huge page in two */

	for (unsigned i = 0; i < n; i++) {
		parts[i].pagemap = pagemap;
		parts[i].scan = *s;
		if (i)
			parts[i].scan.start = first + i * length < s->end ? first + i * length : s->end;
		if (i + 1 < n && first + (i + 1) * length < s->end)
			parts[i].scan.end = first + (i + 1) * length;
	}
	run_all(parts, n);
	for (unsigned i = 0; i < n; i++) {
		r = r ? r : parts[i].result;
		for (size_t j = 0; j < parts[i].n && r == 0; j++)
			r = each(ctx, &parts[i].v[j]);
		free(parts[i].v);
	}
	return r;
}
