/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The start of what was rebuilt.
 *
 * A restore may simply detach one task after the other.  A migration may not: if this process were killed in
 * the middle, some of the tree would run and the rest be dead, beside the whole of it at the source.  So it
 * is held first: a SIGSTOP waits for every process while all stand in our stop, and then they are disowned
 * one by one.  Killed before the end of that, we leave some dead and the others stopped, killed later we
 * leave all of them stopped: whoever comes after us kills them or lets them go, by what the journal says, and
 * nothing has run in between.  At the start the waiting SIGSTOP is taken from under ptrace and thrown away:
 * a SIGCONT would be seen by programs that handle it.
 *
 * A SIGSTOP throws away a SIGCONT that waits, so a process that has one (blocked) is not held: it would be
 * started by our death in that moment.
 */
#include <errno.h>
#include <signal.h>
#include <string.h>

#include "base/util.h"
#include "engine/rebuild.h"
#include "proto/task.pb-c.h"
#include "state/cgroups/cgroups.h"
#include "state/sockets/tcp.h"

static const Ferry__Tree *tree_of(const struct restore *r)
{
	return (const Ferry__Tree *)snapshot_find(&r->snapshot, FERRY__RECORD_TYPE__RECORD_TREE, 0, 0);
}

/* 1: it is to run, 0: it is to be left stopped, -1: neither (a zombie). */
static int wanted(const struct restore *r, const Ferry__TreeProcess *tp)
{
	if (tp->state == FERRY__PROCESS_RUN_STATE__RUN_STOPPED)
		return 0;
	if (tp->state != FERRY__PROCESS_RUN_STATE__RUN_ALIVE)
		return -1;
	return !r->opt.leave_stopped;
}

pid_t restore_root(const struct restore *r)
{
	return r->skeletons.tree->n ? r->skeletons.tree->procs[0]->pid : 0;
}

void restore_each(const struct restore *r, void (*each)(void *ctx, pid_t pid, bool runs), void *ctx)
{
	const Ferry__Tree *tree = tree_of(r);

	for (size_t i = 0; tree && i < tree->n_processes; i++) {
		int runs = wanted(r, tree->processes[i]);

		if (runs >= 0)
			each(ctx, tree->processes[i]->pid, runs > 0);
	}
}

void restore_each_address(struct restore *r, void (*each)(void *ctx, const char *local, const char *peer),
			  void *ctx)
{
	tcp_each_coming(&r->rebuild, each, ctx);
}

void restore_put_packets(struct restore *r, const ProtobufCBinaryData *list, size_t n)
{
	tcp_put_packets(&r->rebuild, list, n);
}

static bool has_sigcont(const ProtobufCBinaryData *infos, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		int signo = 0;

		if (infos[i].len >= sizeof(signo))
			memcpy(&signo, infos[i].data, sizeof(signo));
		if (signo == SIGCONT)
			return true;
	}
	return false;
}

static bool continue_waits(const struct restore *r, pid_t pid)
{
	for (size_t i = 0; i < r->snapshot.n; i++) {
		const struct snapshot_record *x = &r->snapshot.r[i];
		const Ferry__SigPending *m = (const Ferry__SigPending *)x->message;

		if (x->type == FERRY__RECORD_TYPE__RECORD_SIGPENDING && x->pid == pid &&
		    (has_sigcont(m->own, m->n_own) || has_sigcont(m->shared, m->n_shared)))
			return true;
	}
	return false;
}

static void stop_all(struct restore *r, bool also_running)
{
	const Ferry__Tree *tree = tree_of(r);

	for (size_t i = 0; i < tree->n_processes; i++) {
		const Ferry__TreeProcess *tp = tree->processes[i];
		int runs = wanted(r, tp);

		/* Sent in our stop, it takes effect when the task leaves it. */
		if (runs == 0)
			kill(tp->pid, SIGSTOP);
		if (runs != 1 || !also_running || continue_waits(r, tp->pid))
			continue;
		struct process *p = tree_find(r->skeletons.tree, tp->pid);

		if (p && kill(tp->pid, SIGSTOP) == 0)
			p->held = true;
	}
}

static bool ended_first(const struct restore *r, const struct process *p)
{
	const Ferry__Tree *tree = tree_of(r);

	for (size_t i = 0; i < tree->n_processes; i++)
		if (tree->processes[i]->pid == p->pid)
			return tree->processes[i]->leader_ended;
	return false;
}

int restore_hold(struct restore *r, struct error *e)
{
	struct tree *t = r->skeletons.tree;

	cgroups_keep(&r->rebuild);
	stop_all(r, true);
	for (size_t i = 0; i < t->n; i++)
		for (size_t j = 0; j < t->procs[i]->n_threads; j++) {
			struct process *p = t->procs[i];

			/* A zombie, or a first thread that has ended. */
			if (p->state == PROCESS_ZOMBIE || (j == 0 && ended_first(r, p)))
				continue;
			int x = task_disown(&p->threads[j]->task, e);

			/* Killed from outside: by an operator, or for lack of memory. */
			if (x == -ESRCH && !error_is(e))
				return error_say(e, ESRCH, "pid %d was killed before its start", p->pid);
			if (x < 0)
				return x;
		}
	return 0;
}

static struct task *first_living(const struct process *p)
{
	size_t i = p->n_threads > 1 && p->threads[0]->task.state == TASK_GONE;

	return &p->threads[i]->task;
}

static void swallow_stops(struct tree *t, struct error *e)
{
	for (size_t i = 0; i < t->n; i++)
		if (t->procs[i]->held && task_swallow_stop(first_living(t->procs[i]), e) < 0)
			t->procs[i]->held = false;
	for (size_t i = 0; i < t->n; i++)
		if (t->procs[i]->held)
			(void)task_swallow_stop_end(first_living(t->procs[i]), e);
}

int restore_start(struct restore *r, pid_t *ret_root, struct error *e)
{
	struct tree *t = r->skeletons.tree;
	int first = 0;

	cgroups_keep(&r->rebuild);
	stop_all(r, false);
	r->started = true;
	first = tcp_release(&r->rebuild, e);
	swallow_stops(t, e);
	/* Children first: a parent that runs may look at them at once. */
	for (size_t i = t->n; i-- > 0;)
		for (size_t j = t->procs[i]->n_threads; j-- > 0;) {
			struct task *task = &t->procs[i]->threads[j]->task;

			if (task->state == TASK_GONE)
				continue;
			int x = task_release(task, e);

			if (x < 0 && !first)
				first = x;
		}
	*ret_root = t->procs[0]->pid;
	return first;
}
