/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stopping a tree that goes on changing.
 *
 * Each pass seizes what is not yet seized, asks all of it to stop, and only then waits: one wait after the
 * other costs little once all are on their way.  A stopped task makes no children and no threads, so what the
 * next look at /proc finds was made before, by a task that was not stopped yet; when a look finds nothing new
 * the tree is complete.  (That look comes after the stop: /proc/PID/task/TID/children may skip an entry while
 * children come and go.)
 *
 * A vfork parent sleeps in a way that nothing interrupts until its child has executed a program or ended;
 * with the child stopped it would sleep for ever.  So such a child is let go until the parent has stopped.
 *
 * Threads that wait for a userfaultfd's monitor are in userfault.c.
 */
#include "freeze/tree.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/kcmp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>

#include "base/util.h"
#include "freeze/cgroup.h"
#include "freeze/rescue.h"
#include "freeze/userfault.h"
#include "procfs/procfs.h"

#define DEFAULT_TIMEOUT_MS 10000
#define PATIENCE_MS        20 /* before looking for the reason of a thread that does not stop */
#define MAX_PASSES         10000
#define KILL_TIMEOUT_MS    10000

/* --- stop ---------------------------------------------------------------------------------------- */

static bool wanted(const struct process *p, const struct thread *t)
{
	return p->state != PROCESS_ZOMBIE && !t->task.seized && t->task.state != TASK_GONE;
}

/* Returns how many threads were new. One that just ends cannot be seized and counts too: the next look tells
 * whether it is gone or the dead leader of living threads. */
static int seize_new(struct tree *tree, struct error *e)
{
	int n = 0;

	for (size_t i = 0; i < tree->n; i++)
		for (size_t j = 0; j < tree->procs[i]->n_threads; j++) {
			struct process *p = tree->procs[i];
			struct task *t = &p->threads[j]->task;

			if (!wanted(p, p->threads[j]))
				continue;
			int r = task_seize(t, p->pid, t->tid, false, e);

			if (r < 0 && r != -ESRCH)
				return r;
			t->state = TASK_RUNNING;
			n++;
		}
	return n;
}

static int interrupt_running(struct tree *tree, struct error *e)
{
	for (size_t i = 0; i < tree->n; i++)
		for (size_t j = 0; j < tree->procs[i]->n_threads; j++) {
			struct task *t = &tree->procs[i]->threads[j]->task;

			if (!t->seized || t->state != TASK_RUNNING)
				continue;
			int r = task_interrupt(t, e);

			if (r < 0 && r != -ESRCH)
				return r;
		}
	return 0;
}

/* Children that still run in their parent's memory. */
static void let_vfork_children_go(struct tree *tree, struct process *parent, struct error *e)
{
	struct error slow = ERROR_INIT;

	for (size_t i = 0; i < tree->n; i++) {
		struct process *p = tree->procs[i];

		if (p->parent != parent || p->state == PROCESS_ZOMBIE || p->n_threads != 1)
			continue;
		struct task *t = &p->threads[0]->task;

		if (!t->seized || sys_kcmp(process_living(parent), process_living(p), KCMP_VM, 0, 0) != 0)
			continue;
		if (t->state == TASK_STOPPED ||
		    (t->state == TASK_RUNNING && task_wait_stopped(t, 0, &slow) == 0))
			(void)task_cont(t, e);
	}
}

/* From then on pages are not waited for any more. */
static uint64_t half_time(uint64_t limit, int timeout_ms)
{
	return limit - timeout_ms * 500000ull;
}

static int wait_one(struct tree *tree, struct process *p, struct task *t, uint64_t limit, int timeout_ms,
		    struct error *e)
{
	struct error slow = ERROR_INIT;
	int r = task_wait_stopped(t, MIN(PATIENCE_MS, timeout_ms), &slow);

	while (r == -ETIMEDOUT && now_ns() < limit) {
		if (job_check_abort(e) < 0)
			return -ECANCELED;
		let_vfork_children_go(tree, p, e);
		userfaults_let_monitors_go(tree, t, half_time(limit, timeout_ms) < now_ns(), e);
		error_clear(&slow);
		/* Asked again, as it may be such a child itself. */
		r = task_interrupt(t, &slow);
		if (r == 0)
			r = task_wait_stopped(t, PATIENCE_MS, &slow);
	}
	if (r == -ETIMEDOUT) {
		error_clear(&slow);
		r = task_wait_stopped(t, 0, &slow);
		if (r == -ETIMEDOUT)
			return task_explain_timeout(t, timeout_ms, e);
	}
	return r < 0 && r != -ESRCH ? error_say(e, -r, "%s", slow.text) : 0;
}

static int wait_running(struct tree *tree, uint64_t limit, int timeout_ms, struct error *e)
{
	for (size_t i = 0; i < tree->n; i++)
		for (size_t j = 0; j < tree->procs[i]->n_threads; j++) {
			struct process *p = tree->procs[i];
			struct task *t = &p->threads[j]->task;

			if (!t->seized || t->state != TASK_RUNNING)
				continue;
			int r = wait_one(tree, p, t, limit, timeout_ms, e);

			if (r < 0)
				return r;
		}
	return 0;
}

static bool any_running(const struct tree *tree)
{
	for (size_t i = 0; i < tree->n; i++)
		for (size_t j = 0; j < tree->procs[i]->n_threads; j++)
			if (tree->procs[i]->threads[j]->task.seized &&
			    tree->procs[i]->threads[j]->task.state == TASK_RUNNING)
				return true;
	return false;
}

/* A vfork child that was let go is asked to stop again once its parent has. */
static int stop_seized(struct tree *tree, uint64_t limit, int timeout_ms, struct error *e)
{
	int r = 0;

	do {
		r = userfaults_stop_waiting(tree, half_time(limit, timeout_ms), e);
		if (r == 0)
			r = interrupt_running(tree, e);
		if (r == 0)
			r = wait_running(tree, limit, timeout_ms, e);
	} while (r == 0 && any_running(tree));
	return r;
}

/* A cgroup of version 1 reports ptrace stops only when thawed; one of version 2 keeps a thread from running
 * our calls. So both are thawed as soon as ptrace has everything, or can have it. */
static int thaw_cgroup(struct tree *tree, bool was_frozen, const char *dir, struct error *e)
{
	if (was_frozen) {
		free(tree->freeze_cgroup);
		tree->freeze_cgroup = xstrdup(dir); /* frozen by its owner: again when we go */
		rescue_note_cgroup(dir, true);
	}
	int r = cgroup_set(dir, false, e);

	if (!was_frozen)
		rescue_clear_cgroup();
	return r;
}

static int freeze_again(struct tree *t, struct error *e)
{
	if (!t->freeze_cgroup)
		return 0;
	int r = cgroup_set(t->freeze_cgroup, true, e);

	rescue_clear_cgroup();
	free(TAKE_PTR(t->freeze_cgroup));
	return r;
}

static int freeze_passes(struct tree *tree, const char *cgroup, bool was_frozen, uint64_t limit,
			 int timeout_ms, void (*gone)(void *ctx, struct process *p), void *ctx,
			 struct error *e)
{
	for (int pass = 0;; pass++) {
		int r = seize_new(tree, e);

		if (r == 0 && pass > 0)
			return 0;
		if (r >= 0 && cgroup && pass == 0 && cgroup_is_v1(cgroup)) {
			r = interrupt_running(tree, e);
			if (r == 0)
				r = thaw_cgroup(tree, was_frozen, cgroup, e);
			cgroup = NULL;
		}
		if (r >= 0)
			r = stop_seized(tree, limit, timeout_ms, e);
		if (r == 0 && cgroup && pass == 0)
			r = thaw_cgroup(tree, was_frozen, cgroup, e);
		if (r == 0)
			r = job_check_abort(e);
		if (r < 0)
			return r;
		if (pass > 10)
			nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL); /* somebody is slow to end */
		if (pass == MAX_PASSES || now_ns() > limit)
			return error_say(e, ETIMEDOUT,
					 "pid %d: its tree grew faster than it could be stopped",
					 tree->procs[0]->pid);
		r = tree_rescan(tree, gone, ctx, e);
		if (r < 0)
			return r;
	}
}

static void note_group_stops(struct tree *tree)
{
	for (size_t i = 0; i < tree->n; i++) {
		struct process *p = tree->procs[i];

		if (p->state == PROCESS_ZOMBIE)
			continue;
		p->state = PROCESS_ALIVE;
		for (size_t j = 0; j < p->n_threads; j++)
			if (p->threads[j]->task.state == TASK_STOPPED && p->threads[j]->task.group_stopped)
				p->state = PROCESS_STOPPED;
	}
}

int tree_freeze(struct tree *t, const struct freeze_options *opt, void (*gone)(void *ctx, struct process *p),
		void *ctx, struct error *e)
{
	int timeout_ms = opt && opt->timeout_ms > 0 ? opt->timeout_ms : DEFAULT_TIMEOUT_MS;
	uint64_t limit = now_ns() + (uint64_t)timeout_ms * 1000000;
	const char *cgroup = opt ? opt->freeze_cgroup : NULL;
	bool was_frozen = false;
	int r = 0;

	t->userfaults = opt && opt->userfaults;
	userfaults_begin(t);
	if (cgroup) {
		rescue_note_cgroup(cgroup, false);
		r = cgroup_freeze(cgroup, timeout_ms, &was_frozen, e);
		if (r < 0 || was_frozen)
			rescue_clear_cgroup();
		if (r < 0)
			return r;
	}
	r = tree_rescan(t, gone, ctx, e);
	if (r >= 0)
		r = freeze_passes(t, cgroup, was_frozen, limit, timeout_ms, gone, ctx, e);
	if (r == 0) {
		note_group_stops(t);
		t->frozen = true;
		return 0;
	}
	struct error undo = ERROR_INIT;

	if (cgroup && !was_frozen) {
		cgroup_set(cgroup, false, &undo);
		rescue_clear_cgroup();
	}
	(void)tree_thaw(t, &undo);
	return r;
}

/* --- let go -------------------------------------------------------------------------------------- */

/* Those that are stopped first: one that cannot be stopped (and so not detached) must not hold up the others.
 */
int tree_thaw(struct tree *t, struct error *e)
{
	/* With version 2 before they are let go: they come from our stop right into that of their owner. */
	int first = t->freeze_cgroup && !cgroup_is_v1(t->freeze_cgroup) ? freeze_again(t, e) : 0;

	for (int pass = 0; pass < 2; pass++)
		for (size_t i = t->n; i-- > 0;)
			for (size_t j = t->procs[i]->n_threads; j-- > 0;) {
				struct task *task = &t->procs[i]->threads[j]->task;

				if (!task->seized || (pass == 0 && task->state == TASK_RUNNING))
					continue;
				int r = task_release(task, e);

				first = first ? first : r;
			}
	int r = freeze_again(t, e);

	first = first ? first : r;
	t->frozen = false;
	return first;
}

/* The tracer has to collect each thread, the leader last; then the process is a zombie for its parent only.
 */
static void reap(struct process *p)
{
	for (size_t n = p->n_threads; n-- > 0;) {
		struct task *t = &p->threads[n]->task;
		int sig;

		while (t->seized && t->state != TASK_GONE && task_wait(t, &sig) != TASK_STOP_GONE)
			;
		if (t->seized && t->state == TASK_GONE)
			rescue_clear_task(t);
		t->seized = false;
	}
}

int tree_kill(struct tree *t, struct error *e)
{
	uint64_t limit = now_ns() + KILL_TIMEOUT_MS * 1000000ull;
	int first = 0;

	for (size_t i = 0; i < t->n; i++)
		if (t->procs[i]->state != PROCESS_ZOMBIE && t->procs[i]->pidfd >= 0)
			(void)sys_pidfd_send_signal(t->procs[i]->pidfd, SIGKILL);
	for (size_t i = t->n; i-- > 0;) {
		struct process *p = t->procs[i];
		struct pollfd poll_fd = {.fd = p->pidfd, .events = POLLIN};

		reap(p);
		rescue_clear_region(p->pid);
		if (p->pidfd < 0)
			continue;
		uint64_t now = now_ns();

		if (poll(&poll_fd, 1, now < limit ? (int)((limit - now) / 1000000) : 0) != 1 && first == 0)
			first = error_say(e, ETIMEDOUT, "pid %d did not end when killed", p->pid);
	}
	(void)freeze_again(t, e);
	t->frozen = false;
	return first;
}
