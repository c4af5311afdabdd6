/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a peer may take here.  A source tells how large its program is before the first page, and may be
 * wrong, or lie.  So what arrives is counted: not page by page, since each may come many times, but whenever
 * so much has come since the last look as there was room then, the kernel is asked how much the skeletons and
 * the shared memory really have.  Close to the limit that would be for each page, so it is for each 64th of
 * the limit at most: that much more may be taken.
 *
 * Of several migrations of one peer each writes down what it was told to be, or what it has and may take
 * until the next look, whichever is more, and has what the others have not (allowance_table.c).
 */
#include "engine/allowance_table.h"

#include <errno.h>
#include <sys/stat.h>

#include "base/util.h"
#include "engine/rebuild.h"
#include "procfs/procfs.h"

static int refuse_memory(uint64_t bytes, const char *what, uint64_t others, const struct restore_limits *l,
			 struct error *e)
{
	cleanup_free char *beside = others ? xasprintf(" beside %llu MiB of what else comes from this peer",
						       (unsigned long long)(others >> 20))
					   : xstrdup("");

	return error_say(e, EDQUOT,
			 "the program %s %llu MiB of memory%s, and this host takes %llu MiB from a peer "
			 "(--max-peer-memory)",
			 what, (unsigned long long)(bytes >> 20), beside,
			 (unsigned long long)(l->memory >> 20));
}

int allowance_inventory(struct restore *r, const Ferry__Inventory *i, struct error *e)
{
	const struct restore_limits *l = &r->opt.limits;
	uint64_t others;

	r->announced = i->memory;
	return allowance_share(l, ALLOWANCE_MEMORY, i->memory, i->memory, &others)
		       ? 0
		       : refuse_memory(i->memory, "has", others, l, e);
}

int allowance_tree(struct restore *r, const Ferry__Tree *t, struct error *e)
{
	const struct restore_limits *l = &r->opt.limits;
	uint64_t tasks = 0, others;

	for (size_t i = 0; i < t->n_processes; i++)
		tasks += MAX(t->processes[i]->n_tids, (size_t)1);
	if (allowance_share(l, ALLOWANCE_TASKS, tasks, tasks, &others))
		return 0;
	cleanup_free char *beside = others ? xasprintf(" beside %llu of what else comes from this peer",
						       (unsigned long long)others)
					   : xstrdup("");

	return error_say(e, EDQUOT,
			 "the program has %llu processes and threads%s, and this host takes %llu from a peer "
			 "(--max-peer-processes)",
			 (unsigned long long)tasks, beside, (unsigned long long)l->tasks);
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

/* What is taken until the next look is this one's from now on: others cannot take it. */
int allowance_take(struct restore *r, uint64_t bytes, struct error *e)
{
	const struct restore_limits *l = &r->opt.limits;
	uint64_t others;

	r->untold += bytes;
	if (!l->memory || r->untold <= r->room)
		return 0;
	uint64_t have = measure(r), step = l->memory / (l->table ? 16 : 1);

	if (!allowance_share(l, ALLOWANCE_MEMORY, have, MAX(r->announced, have + step), &others))
		return refuse_memory(have, "already has", others, l, e);
	r->untold = 0;
	r->room = MAX(MIN(l->memory - MIN(have + others, l->memory), step), l->memory / 64);
	return 0;
}

int allowance_missing(struct restore *r, struct error *e)
{
	const struct restore_limits *l = &r->opt.limits;
	uint64_t all = l->memory ? measure(r) + restore_missing_bytes(r) : 0, others;

	return allowance_share(l, ALLOWANCE_MEMORY, all, MAX(all, r->announced), &others)
		       ? 0
		       : refuse_memory(all, "has", others, l, e);
}
