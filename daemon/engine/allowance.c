/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a peer may take here.  A source tells how large its program is before the first page, and may be
 * wrong, or lie.  So what arrives is counted: not page by page, since each may come many times, but whenever
 * so much has come since the last look as there was room then, the kernel is asked how much the skeletons and
 * the shared memory really have.  Close to the limit that would be for each page, so it is for each 64th of
 * the limit at most: that much more may be taken.
 */
#include "engine/allowance.h"

#include <errno.h>
#include <sys/stat.h>

#include "base/util.h"
#include "engine/rebuild.h"
#include "procfs/procfs.h"

static int refuse_memory(uint64_t bytes, const char *what, const struct restore_limits *l, struct error *e)
{
	return error_say(e, EDQUOT,
			 "the program %s %llu MiB of memory, and this host takes %llu MiB from a peer "
			 "(--max-peer-memory)",
			 what, (unsigned long long)(bytes >> 20), (unsigned long long)(l->memory >> 20));
}

int allowance_inventory(const struct restore *r, const Ferry__Inventory *i, struct error *e)
{
	const struct restore_limits *l = &r->opt.limits;

	return l->memory && i->memory > l->memory ? refuse_memory(i->memory, "has", l, e) : 0;
}

int allowance_tree(const struct restore *r, const Ferry__Tree *t, struct error *e)
{
	const struct restore_limits *l = &r->opt.limits;
	uint64_t tasks = 0;

	for (size_t i = 0; i < t->n_processes; i++)
		tasks += MAX(t->processes[i]->n_tids, (size_t)1);
	if (!l->tasks || tasks <= l->tasks)
		return 0;
	return error_say(e, EDQUOT,
			 "the program has %llu processes and threads, and this host takes %llu from a peer "
			 "(--max-peer-processes)",
			 (unsigned long long)tasks, (unsigned long long)l->tasks);
}

static uint64_t measure(const struct restore *r)
{
	uint64_t bytes = 0;

	for (size_t i = 0; i < r->skeletons.tree->n; i++) {
		struct error ignore = ERROR_INIT;
		struct proc_status st;

		if (proc_status_read(r->skeletons.tree->procs[i]->pid, 0, &st, &ignore) < 0)
			continue;
		bytes += (st.rss_anon_kb + st.swap_kb) << 10;
		proc_status_deinit(&st);
	}
	for (size_t i = 0; i < r->n_objects; i++) {
		struct stat st;

		if (r->objects[i].origin != OBJECT_SAME && fstat(r->objects[i].fd, &st) == 0)
			bytes += (uint64_t)st.st_blocks * 512;
	}
	return bytes;
}

int allowance_take(struct restore *r, uint64_t bytes, struct error *e)
{
	const struct restore_limits *l = &r->opt.limits;

	r->untold += bytes;
	if (!l->memory || r->untold <= r->room)
		return 0;
	uint64_t have = measure(r);

	if (have > l->memory)
		return refuse_memory(have, "already has", l, e);
	r->untold = 0;
	r->room = MAX(l->memory - have, l->memory / 64);
	return 0;
}

int allowance_missing(struct restore *r, struct error *e)
{
	const struct restore_limits *l = &r->opt.limits;
	uint64_t all = l->memory ? measure(r) + restore_missing_bytes(r) : 0;

	return all > l->memory ? refuse_memory(all, "has", l, e) : 0;
}
