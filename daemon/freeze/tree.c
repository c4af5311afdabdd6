/* SPDX-License-Identifier: Apache-2.0 */
/* The tree's structs, and finding it in /proc while it changes. Stopping it is in freeze.c. */
#include "freeze/tree.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/util.h"
#include "freeze/rescue.h"
#include "procfs/procfs.h"

/* --- structs ------------------------------------------------------------------------------------- */

static struct thread *thread_new(struct process *p, pid_t tid)
{
	struct thread *t = xcalloc(1, sizeof(*t));

	t->process = p;
	t->task.pid = p->pid;
	t->task.tid = tid;
	return t;
}

/* A thread that is no longer of the tree. If it lives on somewhere it must not stay stopped. */
static void thread_free(struct thread *t)
{
	struct error ignored = ERROR_INIT;

	if (!t)
		return;
	if (t->task.seized && !t->task.skeleton)
		(void)task_release(&t->task, &ignored);
	free(t);
}

static void process_free(struct process *p)
{
	for (size_t i = p->n_threads; i-- > 0;)
		thread_free(p->threads[i]);
	free(p->threads);
	if (p->pidfd >= 0)
		close(p->pidfd);
	if (p->living_fd > 0)
		close(p->living_fd);
	free(p);
}

void tree_free(struct tree *t)
{
	if (!t)
		return;
	for (size_t i = 0; i < t->n; i++)
		process_free(t->procs[i]);
	free(t->procs);
	free(t->freeze_cgroup);
	free(t);
}

static struct process *process_new(pid_t pid, struct process *parent)
{
	struct process *p = xcalloc(1, sizeof(*p));

	p->pid = pid;
	p->parent = parent;
	p->ppid = parent ? parent->pid : 0;
	p->pidfd = -1;
	return p;
}

struct process *tree_find(struct tree *t, pid_t pid)
{
	for (size_t i = 0; i < t->n; i++)
		if (t->procs[i]->pid == pid)
			return t->procs[i];
	return NULL;
}

bool tree_includes(struct tree *t, pid_t pid)
{
	struct error gone = ERROR_INIT;
	struct proc_stat s;

	while (pid > 1 && !tree_find(t, pid))
		pid = proc_stat_read(pid, 0, &s, &gone) < 0 ? 0 : s.ppid;
	return pid > 1;
}

struct process *tree_add_process(struct tree *t, pid_t pid, struct process *parent)
{
	struct process *p = process_new(pid, parent);

	t->procs = xrealloc(t->procs, (t->n + 1) * sizeof(struct process *));
	t->procs[t->n++] = p;
	return p;
}

struct thread *process_add_thread(struct process *p, pid_t tid)
{
	p->threads = xrealloc(p->threads, (p->n_threads + 1) * sizeof(struct thread *));
	return p->threads[p->n_threads++] = thread_new(p, tid);
}

/* --- what can never be captured -------------------------------------------------------------------- */

static int check_relation(pid_t root, struct error *e)
{
	struct proc_stat s;
	pid_t pid = getpid();

	if (root == 1)
		return error_say(
			e, EINVAL,
			"pid 1 is the init of this pid namespace and cannot be captured from inside");
	if (root == pid)
		return error_say(e, EINVAL, "pid %d is this program itself", root);
	while (pid > 1) {
		struct error ignored = ERROR_INIT;

		if (proc_stat_read(pid, 0, &s, &ignored) < 0)
			break;
		pid = s.ppid;
		if (pid == root)
			return error_say(e, EINVAL,
					 "pid %d is an ancestor of this program (its shell or terminal?)",
					 root);
	}
	return 0;
}

int tree_check_root(pid_t root, struct error *e)
{
	struct error missing = ERROR_INIT;
	struct proc_status status = {0};
	struct proc_stat s;

	if (root <= 0)
		return error_say(e, EINVAL, "%d is not a process id", root);
	if (proc_stat_read(root, 0, &s, &missing) < 0)
		return error_say(e, ESRCH, "pid %d does not exist", root);
	if (s.flags & PF_KTHREAD)
		return error_say(e, EINVAL, "pid %d (%s) is a kernel thread", root, s.comm);
	if ((s.state == 'Z' && s.num_threads <= 1) || s.state == 'X')
		return error_say(e, EINVAL, "pid %d (%s) has already ended and is a zombie", root, s.comm);
	if (proc_status_read(root, root, &status, &missing) == 0 && status.tgid && status.tgid != root) {
		proc_status_deinit(&status);
		return error_say(e, EINVAL, "%d is a thread of pid %d", root, status.tgid);
	}
	proc_status_deinit(&status);
	return check_relation(root, e);
}

/* --- scanning ------------------------------------------------------------------------------------ */

struct scan {
	struct process **old; /* by pid; taken ones become NULL in `taken` */
	bool *taken;
	size_t n_old;
	struct process **list; /* the new order: parents first */
	size_t n, cap;
	int changes;
};

static int by_pid(const void *a, const void *b)
{
	pid_t p = (*(struct process *const *)a)->pid, q = (*(struct process *const *)b)->pid;

	return p < q ? -1 : p > q;
}

static struct process *take_old(struct scan *s, pid_t pid, uint64_t start_time)
{
	size_t lo = 0, hi = s->n_old;

	while (lo < hi) {
		size_t mid = (lo + hi) / 2;

		if (s->old[mid]->pid < pid)
			lo = mid + 1;
		else
			hi = mid;
	}
	if (lo == s->n_old || s->old[lo]->pid != pid || s->old[lo]->start_time != start_time || s->taken[lo])
		return NULL;
	s->taken[lo] = true;
	return s->old[lo];
}

/* Threads that the kernel itself runs in a process for its io_uring: they never leave it, cannot be traced,
 * and are none of the program's. */
static bool is_kernels(pid_t pid, pid_t tid)
{
	struct error ignored = ERROR_INIT;
	struct proc_stat s;

	return tid != pid && proc_stat_read(pid, tid, &s, &ignored) >= 0 &&
	       (s.flags & (PF_IO_WORKER | PF_USER_WORKER));
}

/* Merge: both lists have the leader first, if it has not ended, and the others ascending. */
static int update_threads(struct process *p, const pid_t *tids, size_t n)
{
	struct thread **list = xcalloc(n ? n : 1, sizeof(struct thread *));
	size_t have = 0, kept = 0;
	int changes = 0;

	if (p->n_threads && n && p->threads[0]->task.tid == p->pid && tids[0] != p->pid) {
		p->threads[0]->task.state = TASK_GONE;
		thread_free(p->threads[have++]);
		changes++;
	}
	for (size_t i = 0; i < n; i++) {
		while (have < p->n_threads && p->threads[have]->task.tid != p->pid &&
		       p->threads[have]->task.tid < tids[i]) {
			thread_free(p->threads[have++]);
			changes++;
		}
		if (have < p->n_threads && p->threads[have]->task.tid == tids[i]) {
			list[kept++] = p->threads[have++];
		} else if (!is_kernels(p->pid, tids[i]) ||
			   (!kept && i + 1 == n)) { /* a process has a thread */
			list[kept++] = thread_new(p, tids[i]);
			changes++;
		}
	}
	for (; have < p->n_threads; have++, changes++)
		thread_free(p->threads[have]);
	free(p->threads);
	p->threads = list;
	p->n_threads = kept;
	return changes;
}

static void take_stat(struct process *p, const struct proc_stat *s)
{
	bool dead = s->state == 'Z' || s->state == 'X';

	p->start_time = s->start_time;
	p->ppid = s->ppid;
	p->pgid = s->pgrp;
	p->sid = s->session;
	p->exit_status = s->exit_code;
	snprintf(p->comm, sizeof(p->comm), "%.15s", s->comm);
	if (dead && s->num_threads <= 1)
		p->state = PROCESS_ZOMBIE;
	else if (s->state != 't') /* held by us: as it was */
		p->state = s->state == 'T' ? PROCESS_STOPPED : PROCESS_ALIVE;
	if (p->state == PROCESS_ZOMBIE && p->n_threads)
		p->threads[0]->task.state = TASK_GONE;
}

/* A first thread that has ended is none of the threads, unless it is all there is. */
static size_t drop_ended_leader(const struct proc_stat *s, pid_t *tids, size_t n)
{
	if (s->state != 'Z' || n < 2 || tids[0] != s->pid)
		return n;
	memmove(tids, tids + 1, --n * sizeof(*tids));
	return n;
}

static void find_living(struct process *p)
{
	pid_t now = p->state != PROCESS_ZOMBIE && p->n_threads && p->threads[0]->task.tid != p->pid
			    ? p->threads[0]->task.tid
			    : 0;

	if (now == p->living)
		return;
	if (p->living_fd > 0)
		close(p->living_fd);
	p->living = now;
	p->living_fd = now ? sys_pidfd_open(now, PIDFD_THREAD) : 0;
}

static int visit(struct scan *s, pid_t pid, struct process *parent, struct error *e)
{
	cleanup_free pid_t *tids = NULL;
	struct error missing = ERROR_INIT;
	struct proc_stat stat;
	size_t n = 0;
	int r = proc_stat_read(pid, 0, &stat, &missing);

	if (r == 0 && stat.state == 'X')
		r = -ESRCH;
	if (r == 0)
		r = proc_threads(pid, &tids, &n, &missing);
	if (r == -ENOENT || r == -ESRCH || (r == 0 && n == 0))
		return parent ? 0 : error_say(e, ESRCH, "pid %d does not exist any more", pid);
	if (r < 0)
		return error_say(e, -r, "%s", missing.text);
	struct process *p = take_old(s, pid, stat.start_time);

	if (!p) {
		p = process_new(pid, parent);
		s->changes++;
	}
	p->parent = parent;
	enum process_state before = p->state;

	s->changes += update_threads(p, tids, drop_ended_leader(&stat, tids, n));
	take_stat(p, &stat);
	find_living(p);
	if (p->state != PROCESS_ZOMBIE && p->pidfd < 0) {
		int fd = sys_pidfd_open(pid, 0);

		p->pidfd = fd < 0 ? -1 : fd;
	}
	if (p->state == PROCESS_ZOMBIE) {
		s->changes += before != PROCESS_ZOMBIE && p->pidfd >= 0;
		if (p->pidfd >= 0)
			close(TAKE_FD(p->pidfd));
	}
	if (s->n == s->cap)
		s->list = xrealloc(s->list, (s->cap = s->cap ? s->cap * 2 : 16) * sizeof(struct process *));
	s->list[s->n++] = p;
	return 0;
}

static int visit_all(struct scan *s, pid_t root, struct error *e)
{
	int r = visit(s, root, NULL, e);

	for (size_t i = 0; r == 0 && i < s->n; i++) {
		struct process *p = s->list[i];
		struct error missing = ERROR_INIT;
		cleanup_free pid_t *children = NULL;
		size_t n = 0;

		if (p->state == PROCESS_ZOMBIE)
			continue;
		int got = proc_children(p->pid, &children, &n, &missing);

		if (got < 0 && got != -ESRCH && got != -ENOENT)
			r = error_say(e, -got, "%s", missing.text);
		for (size_t j = 0; got >= 0 && r == 0 && j < n; j++)
			r = visit(s, children[j], p, e);
	}
	return r;
}

int tree_rescan(struct tree *t, void (*gone)(void *ctx, struct process *p), void *ctx, struct error *e)
{
	struct scan s = {.n_old = t->n};
	pid_t root = t->procs[0]->pid;
	uint64_t root_start = t->procs[0]->start_time;

	s.old = xmemdup(t->procs, t->n * sizeof(struct process *));
	s.taken = xcalloc(t->n, sizeof(bool));
	qsort(s.old, s.n_old, sizeof(struct process *), by_pid);
	int r = visit_all(&s, root, e);

	if (r == 0 && root_start && s.list[0]->start_time != root_start)
		r = error_say(e, ESRCH, "pid %d has ended, and its number belongs to another process", root);
	/* On failure the tree is as it was but for what was found; nothing may be lost or freed twice. */
	for (size_t i = 0; i < s.n_old; i++) {
		if (s.taken[i])
			continue;
		if (r < 0) {
			if (s.n == s.cap)
				s.list = xrealloc(s.list, (s.cap = s.cap + 16) * sizeof(struct process *));
			s.list[s.n++] = s.old[i];
			continue;
		}
		if (gone)
			gone(ctx, s.old[i]);
		process_free(s.old[i]);
		s.changes++;
	}
	free(s.old);
	free(s.taken);
	free(t->procs);
	t->procs = s.list;
	t->n = s.n;
	return r < 0 ? r : s.changes;
}

int tree_scan(pid_t root, struct tree **ret, struct error *e)
{
	struct tree *t = xcalloc(1, sizeof(*t));

	tree_add_process(t, root, NULL);
	int r = tree_rescan(t, NULL, NULL, e);

	if (r < 0) {
		tree_free(t);
		return r;
	}
	*ret = t;
	return 0;
}
