/* SPDX-License-Identifier: Apache-2.0 */
/* Skeletons become the target: everything but the start, then the start. */
#include "engine/rebuild.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/wait.h>

#include "arch/arch.h"
#include "base/util.h"
#include "engine/place.h"
#include "engine/skeleton.h"
#include "state/files/files.h"

/* What kinds want from a batch, for one thread. */
static int build_thread(struct restore *r, struct process *p, struct thread *t, bool leader, struct batch *b,
			struct error *e)
{
	if (leader) {
		/* Zombies among our children made SIGCHLD pending here: it is none of the target's. */
		sigset_t chld;

		sigemptyset(&chld);
		sigaddset(&chld, SIGCHLD);
		size_t set = batch_put(b, &chld, 8), now = batch_reserve(b, sizeof(struct timespec));
		unsigned c = batch_call(b, "flush SIGCHLD", SYS_rt_sigtimedwait, ARG_DATA(set), ARG(0),
					ARG_DATA(now), ARG(8));

		batch_accept_errno(b, c, EAGAIN);
	}
	for (size_t i = 0; state_kinds[i]; i++) {
		const struct state_kind *k = state_kinds[i];
		bool mine = k->scope == KIND_THREAD || (k->scope == KIND_PROCESS && leader);

		if (!mine || !k->build)
			continue;
		const ProtobufCMessage *m = snapshot_find(&r->snapshot, k->type, p->pid,
							  k->scope == KIND_THREAD ? t->task.tid : 0);
		if (!m)
			continue;
		int x = k->build(&r->rebuild, p, t, m, b, e);

		if (x < 0)
			return error_prefix(e, "pid %d: %s", p->pid, k->name);
	}
	return 0;
}

struct jobs {
	struct runner **w;
	struct batch **b;
	size_t n, cap;
};

static struct batch *add_job(struct jobs *j, struct runner *w)
{
	if (j->n == j->cap) {
		j->cap = j->cap ? j->cap * 2 : 64;
		j->w = xrealloc(j->w, j->cap * sizeof(*j->w));
		j->b = xrealloc(j->b, j->cap * sizeof(*j->b));
	}
	j->w[j->n] = w;
	j->b[j->n] = xcalloc(1, sizeof(struct batch));
	return j->b[j->n++];
}

static void jobs_deinit(struct jobs *j)
{
	for (size_t i = 0; i < j->n; i++) {
		batch_deinit(j->b[i]);
		free(j->b[i]);
	}
	free(j->w);
	free(j->b);
}

static int start_runners(struct process *p, struct error *e)
{
	struct skeleton *k = p->data;
	int x = skeleton_run(p, e);

	p->threads[0]->data = k->runner;
	for (size_t i = 1; i < p->n_threads && x >= 0; i++)
		x = runner_start((struct runner **)&p->threads[i]->data, k->region, &p->threads[i]->task, e);
	return x;
}

static int build_all(struct restore *r, struct error *e)
{
	struct tree *t = r->skeletons.tree;
	struct jobs jobs = {0};
	int x = 0;

	for (size_t i = 0; i < t->n && x >= 0; i++) {
		struct process *p = t->procs[i];

		if (p->state == PROCESS_ZOMBIE)
			continue;
		x = start_runners(p, e);
		for (size_t j = 0; j < p->n_threads && x >= 0; j++)
			x = build_thread(r, p, p->threads[j], j == 0, add_job(&jobs, p->threads[j]->data), e);
	}
	if (x >= 0)
		x = runner_run_all(jobs.w, jobs.b, jobs.n, e);
	jobs_deinit(&jobs);
	return x;
}

static int leave_process(struct process *p, struct error *e)
{
	struct skeleton *k = p->data;
	int x = 0;

	for (size_t i = 0; i < p->n_threads && x >= 0; i++) {
		if (p->threads[i]->data)
			x = runner_stop(p->threads[i]->data, e);
		p->threads[i]->data = NULL;
	}
	k->runner = NULL;
	if (x >= 0)
		x = region_remove(k->region, e);
	k->region = NULL;
	return x;
}

static int finish_thread(struct restore *r, struct process *p, struct thread *t, bool leader, struct error *e)
{
	for (size_t i = 0; state_kinds[i]; i++) {
		const struct state_kind *k = state_kinds[i];
		bool mine = k->scope == KIND_THREAD || (k->scope == KIND_PROCESS && leader);

		if (!mine || !k->finish)
			continue;
		const ProtobufCMessage *m = snapshot_find(&r->snapshot, k->type, p->pid,
							  k->scope == KIND_THREAD ? t->task.tid : 0);
		int x = m ? k->finish(&r->rebuild, p, t, m, e) : 0;

		if (x < 0)
			return error_prefix(e, "pid %d tid %d: %s", p->pid, t->task.tid, k->name);
	}
	return 0;
}

/* They were needed until now: all others were made by them. */
static int end_leaders(struct restore *r, const Ferry__Tree *tree, struct error *e)
{
	int x = 0;

	for (size_t i = 0; i < tree->n_processes && x >= 0; i++) {
		const Ferry__TreeProcess *tp = tree->processes[i];
		struct process *p = tp->leader_ended ? tree_find(r->skeletons.tree, tp->pid) : NULL;

		if (p && p->n_threads > 1)
			x = task_end_first(&p->threads[0]->task, WEXITSTATUS(tp->exit_status), e);
	}
	return x;
}

static int prepare_kinds(struct restore *r, struct error *e)
{
	for (size_t i = 0; state_kinds[i]; i++) {
		const struct state_kind *k = state_kinds[i];

		for (size_t j = 0; k->prepare && j < r->snapshot.n; j++) {
			if (r->snapshot.r[j].type != k->type)
				continue;
			int x = k->prepare(&r->rebuild, r->snapshot.r[j].message, e);

			if (x < 0)
				return error_prefix(e, "%s", k->name);
		}
	}
	return 0;
}

static int finish_objects(struct restore *r, struct error *e)
{
	const Ferry__Objects *os =
		(const Ferry__Objects *)snapshot_find(&r->snapshot, FERRY__RECORD_TYPE__RECORD_OBJECTS, 0, 0);
	int x = 0;

	for (size_t i = 0; os && i < os->n_objects && x >= 0; i++)
		x = object_finish(os->objects[i], restore_object_fd(&r->rebuild, os->objects[i]->id), e);
	return x;
}

/* Thread and process records are found by (type, pid, tid) for every thread: sort once instead of searching
 * each time. */
int restore_prepare(struct restore *r, struct error *e)
{
	const Ferry__Tree *tree =
		(const Ferry__Tree *)snapshot_find(&r->snapshot, FERRY__RECORD_TYPE__RECORD_TREE, 0, 0);

	snapshot_drop_warm(&r->snapshot);
	snapshot_sort(&r->snapshot);
	tree = (const Ferry__Tree *)snapshot_find(&r->snapshot, FERRY__RECORD_TYPE__RECORD_TREE, 0, 0);
	if (!tree)
		return error_say(e, EINVAL, "the image has no process tree");
	error_phase(e, "build processes");
	int x = restore_sync(r, e);

	if (x >= 0)
		x = lazy_drop(r, e);
	/* All contents are there. */
	for (size_t i = 0; i < r->skeletons.tree->n; i++)
		if (r->skeletons.tree->procs[i]->data)
			place_deinit(&((struct skeleton *)r->skeletons.tree->procs[i]->data)->place);
	uint64_t t0 = now_ns();

	if (x >= 0)
		x = lazy_make(r, e);
	if (x >= 0)
		x = restore_check(r, e);
	error_phase(e, "restore files");
	if (x >= 0)
		x = prepare_kinds(r, e);
	if (x >= 0)
		x = finish_objects(r, e);
	uint64_t t1 = now_ns();

	error_phase(e, "make zombies");
	if (x >= 0)
		x = skeletons_make_zombies(&r->skeletons, tree, e);
	error_phase(e, "restore tasks");
	if (x >= 0)
		x = build_all(r, e);
	for (size_t i = 0; i < r->skeletons.tree->n && x >= 0; i++)
		if (r->skeletons.tree->procs[i]->state != PROCESS_ZOMBIE)
			x = leave_process(r->skeletons.tree->procs[i], e);
	for (size_t i = 0; i < r->skeletons.tree->n && x >= 0; i++) {
		struct process *p = r->skeletons.tree->procs[i];

		for (size_t j = 0; j < p->n_threads && x >= 0 && p->state != PROCESS_ZOMBIE; j++)
			x = finish_thread(r, p, p->threads[j], j == 0, e);
	}
	if (x >= 0)
		x = end_leaders(r, tree, e);
	if (x >= 0)
		x = lazy_arm(r, e);
	r->t_files = t1 - t0;
	r->t_tasks = now_ns() - t1;
	events_log(r->events, 4, "prepare: layout %llu us, files %llu us, tasks %llu us",
		   (unsigned long long)r->t_sync / 1000, (unsigned long long)r->t_files / 1000,
		   (unsigned long long)r->t_tasks / 1000);
	return x;
}
