/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A backend alone: the copier of the conformance test follows the target, and knows nothing but what the
 * backend tells.  What no backend can see (WAY_BLIND) shows here, and what the engine does about it in the
 * other level.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../unit/track/follow.h"
#include "freeze/tree.h"
#include "procfs/procfs.h"
#include "stress.h"

#define MOST_ROUNDS 12

struct run {
	const struct stress_options *o;
	struct stress_result *r;
	struct subject subject;
	struct backend backend;
	struct follow follow;
	bool running;
};

static int64_t inject(void *ctx, long nr, const uint64_t args[6])
{
	struct error e = ERROR_INIT;
	int64_t ret;
	int r = task_syscall(ctx, nr, args, &ret, NULL, NULL, &e);

	return r < 0 ? r : ret;
}

static int attach(struct follow *f, struct error *e)
{
	struct task t = {0};
	cleanup_close int pidfd = sys_pidfd_open(f->pid, 0);
	const struct dirty_target d = {.pid = f->pid, .pidfd = pidfd, .ctx = &t, .syscall = inject};
	int r = task_seize(&t, f->pid, f->pid, false, e);

	if (r >= 0)
		r = task_interrupt(&t, e);
	if (r >= 0)
		r = task_wait_stopped(&t, 30000, e);
	if (r >= 0)
		r = task_save(&t, e);
	if (r >= 0) {
		r = f->ops->attach(&d, &f->session, f->text, sizeof(f->text));
		if (r < 0)
			error_say(e, -r, "attach: %s", f->text);
	}
	int u = task_release(&t, e);

	return r < 0 ? r : u;
}

static bool stands(pid_t pid, pid_t tid)
{
	struct error gone = ERROR_INIT;
	struct proc_stat st;

	return proc_stat_read(pid, tid, &st, &gone) < 0 || st.state == 'T' || st.state == 'Z' ||
	       st.state == 'X';
}

/* All of the tree, whose processes are one group. */
static int stop_tree(pid_t pid, struct error *e)
{
	bool all = false;
	int r = 0;

	kill(-pid, SIGSTOP);
	while (!all && r >= 0) {
		struct tree *t;

		r = tree_scan(pid, &t, e);
		all = r >= 0;
		for (size_t i = 0; r >= 0 && i < t->n; i++)
			for (size_t k = 0; k < t->procs[i]->n_threads; k++)
				all &= stands(t->procs[i]->pid, t->procs[i]->threads[k]->task.tid);
		if (r >= 0)
			tree_free(t);
		usleep(200);
	}
	return r;
}

static void let_go(pid_t pid)
{
	kill(-pid, SIGCONT);
}

static int collect(struct run *x, enum dirty_collect_mode mode, struct error *e)
{
	struct follow *f = &x->follow;
	bool stop = mode == DIRTY_FINAL || !x->running;
	int r = stop ? stop_tree(f->pid, e) : 0;

	if (r < 0)
		return r;
	r = follow_collect(f, mode, mode == DIRTY_ROUND && stop ? let_go : NULL);
	return r < 0 ? error_say(e, -r, "%s", f->text) : 0;
}

static int last_round(struct run *x, struct error *e)
{
	subject_pause(&x->subject, true);
	int r = collect(x, DIRTY_FINAL, e);

	if (r >= 0) {
		subject_relax(x->o->cgroup, true);
		x->r->different += follow_compare(&x->follow);
		x->r->compares++;
		x->r->compared += page_set_bytes(&x->follow.there) / P;
		subject_relax(x->o->cgroup, false);
	}
	let_go(x->subject.pid);
	subject_pause(&x->subject, false);
	return r;
}

static int follow(struct run *x, struct error *e)
{
	unsigned seed = x->o->seed;
	int r = 0;

	while (r >= 0 && x->follow.rounds < x->o->rounds && !x->r->different) {
		for (unsigned i = 1 + (unsigned)rand_r(&seed) % MOST_ROUNDS; i > 0 && r >= 0; i--) {
			if (!subject_progress(&x->subject))
				return error_say(e, ETIME, "the target %s",
						 x->subject.died[0] ? x->subject.died
								    : "has ended, or hangs");
			r = collect(x, DIRTY_ROUND, e);
		}
		if (r >= 0)
			r = last_round(x, e);
	}
	return r;
}

static int begin(struct run *x, struct error *e)
{
	struct follow *f = &x->follow;
	int r = backend_open(x->o->backend, x->o->backend_dir, &x->backend, NULL, e);
	cleanup_free char *mem = xasprintf("/proc/%d/mem", x->subject.pid);

	if (r != 0)
		return r < 0 ? r : error_say(e, ENOENT, "no backend works here");
	*f = (struct follow){.ops = x->backend.ops, .pid = x->subject.pid};
	f->mem = open(mem, O_RDONLY | O_CLOEXEC);
	f->pagemap = pagemap_open(x->subject.pid);
	x->running = f->ops->caps & DIRTY_CAP_RUNNING;
	subject_pause(&x->subject, true); /* it may be tracing */
	r = attach(f, e);
	subject_pause(&x->subject, false);
	return r;
}

void stress_backend(const struct stress_options *o, const struct way_info *way, struct stress_result *res)
{
	struct run x = {.o = o, .r = res, .follow = {.mem = -1, .pagemap = -1}};
	struct error e = ERROR_INIT;

	*res = (struct stress_result){.verdict = STRESS_FAILED};
	int r = subject_start(&x.subject, way, o->cgroup, res->text, sizeof(res->text));

	if (r > 0)
		res->verdict = STRESS_SKIPPED;
	if (r == 0) {
		r = begin(&x, &e);
		if (r >= 0)
			r = follow(&x, &e);
		res->verdict = r < 0 ? STRESS_FAILED : res->different ? STRESS_DIFFERS : STRESS_EQUAL;
		if (r < 0)
			snprintf(res->text, sizeof(res->text), "%.590s", e.text);
		else if (x.follow.untrackable)
			snprintf(res->text, sizeof(res->text), "untracked mappings: %lu",
				 x.follow.untrackable / x.follow.rounds);
	}
	res->rounds = (unsigned)x.follow.rounds;
	res->reported = x.follow.reported;
	res->needless = x.follow.needless;
	follow_deinit(&x.follow);
	if (x.backend.ops)
		backend_close(&x.backend);
	subject_end(&x.subject);
}
