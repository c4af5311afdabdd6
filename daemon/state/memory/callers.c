/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Calls of other processes that hold pages.
 *
 * process_vm_writev(2) looks up to 1024 pages up, and writes them later; ptrace(2) and a write to
 * /proc/PID/mem do so page by page.  A page that is protected between the two is written without a trace, at
 * a time that nothing limits: the caller can be interrupted, or wait for the memory it copies from.  So what
 * is read after the protection is read once more (young.c), when all such calls that were in progress then
 * have ended.  That is found out by a look at all threads:
 *  - one that is blocked in another system call, or in none, is in no such call;
 *  - one that is blocked in process_vm_writev may hold pages. (The others never sleep while they hold one);
 *  - one that is running may be anywhere: it is looked at again, till it is seen elsewhere, or has been in
 * user mode meanwhile. The kernel's tick tells that (user_time.c). Where it may not be asked, 20 ms of the
 * thread's own processor time count instead: by far more than it takes to write 1024 pages.
 *
 * A thread that was made later cannot be in a call from before.  Threads that stand still while pages are
 * protected (soft-dirty) are in no call then.  Not covered: processes that we do not see (of other pid
 * namespaces); those that we may not look at count as through after 20 ms.
 */
#include <errno.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/util.h"
#include "freeze/tree.h"
#include "procfs/procfs.h"
#include "state/memory/memory.h"

#define PAUSE       10 /* times as long as a look took, till the next one */
#define AT_LEAST_NS 1000000ull
#define BLIND_NS    20000000ull
#define TICKS       3 /* of 10 ms, begun ones: more than 20 ms */

/* Also of programs for 32 bits. */
#if defined(__x86_64__)
static const long writers[] = {SYS_process_vm_writev, 348, 0x40000000 | 540};
#elif defined(__aarch64__)
static const long writers[] = {SYS_process_vm_writev, 377};
#else
static const long writers[] = {SYS_process_vm_writev};
#endif

struct caller {
	pid_t pid, tid;
	bool blind;     /* it may not be looked at */
	bool has_user;  /* `spent` is its time in user mode, in microseconds; else all its time, in ticks */
	uint64_t spent; /* at the first look */
};

struct callers {
	struct user_times times;
	uint64_t began, gone, next;
	struct caller *v;
	size_t n, cap;
};

static uint64_t cpu_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* 1: it may be in such a call; 0: it is not, or is gone; -errno: it may not be looked at. */
static int may_be_writing(pid_t pid, pid_t tid)
{
	long nr;
	int r = proc_syscall_read(pid, tid, &nr);

	if (r == -ENOENT || r == -ESRCH)
		return 0;
	if (r < 0)
		return r == -EAGAIN ? 1 : r;
	for (size_t i = 0; i < ARRAY_SIZE(writers); i++)
		if (nr == writers[i])
			return 1;
	return 0;
}

/* False: it is nobody who makes calls. */
static bool measure(const struct callers *c, struct caller *a)
{
	struct error gone = ERROR_INIT;
	struct proc_stat st;

	if (proc_stat_read(a->pid, a->tid, &st, &gone) < 0 || st.flags & PF_KTHREAD || st.state == 'Z' ||
	    st.state == 'X')
		return false;
	a->has_user = user_time(&c->times, a->tid, &a->spent) == 0;
	if (!a->has_user)
		a->spent = st.cpu_ticks;
	return true;
}

static void add(struct callers *c, struct caller a)
{
	if (!a.blind && !measure(c, &a))
		return;
	if (c->n == c->cap) {
		c->cap = c->cap ? 2 * c->cap : 16;
		c->v = xrealloc(c->v, c->cap * sizeof(*c->v));
	}
	c->v[c->n++] = a;
}

/* Kernel threads are among them: they show a call 0, or that they are running. */
static void look_at_process(struct callers *c, pid_t pid)
{
	cleanup_free pid_t *tids = NULL;
	struct error gone = ERROR_INIT;
	size_t n = 0;

	if (proc_threads(pid, &tids, &n, &gone) < 0)
		return;
	for (size_t i = 0; i < n; i++) {
		int r = may_be_writing(pid, tids[i]);

		if (r)
			add(c, (struct caller){.pid = pid, .tid = tids[i], .blind = r < 0});
	}
}

static bool stood_still(const struct memory *m, pid_t pid)
{
	return memory_stops_target(m) && m->tree && tree_find(m->tree, pid);
}

static bool look_at_all(struct memory *m, struct callers *c)
{
	cleanup_free pid_t *pids = NULL;
	struct error e = ERROR_INIT;
	size_t n = 0;

	c->began = now_ns();
	if (proc_pids(&pids, &n, &e) < 0)
		return false;
	for (size_t i = 0; i < n; i++)
		if (pids[i] != getpid() && !stood_still(m, pids[i]))
			look_at_process(c, pids[i]);
	return true;
}

static bool is_through(const struct callers *c, const struct caller *a)
{
	struct caller now = *a;

	if (a->blind)
		return now_ns() >= c->began + BLIND_NS;
	if (may_be_writing(a->pid, a->tid) == 0 || !measure(c, &now))
		return true;
	if (a->has_user)
		return now.has_user && now.spent > a->spent;
	return !now.has_user && now.spent >= a->spent + TICKS;
}

static void look_again(struct callers *c)
{
	size_t n = 0;

	for (size_t i = 0; i < c->n; i++)
		if (!is_through(c, &c->v[i]))
			c->v[n++] = c->v[i];
	c->n = n;
}

static struct callers *callers_of(struct memory *m)
{
	if (!m->callers) {
		m->callers = xcalloc(1, sizeof(*m->callers));
		user_times_open(&m->callers->times);
	}
	return m->callers;
}

uint64_t callers_gone(struct memory *m, uint64_t wanted)
{
	struct callers *c = callers_of(m);
	uint64_t before = cpu_ns();

	if (c->gone >= wanted || now_ns() < c->next)
		return c->gone;
	if (c->n)
		look_again(c);
	else if (!look_at_all(m, c))
		return c->gone;
	if (!c->n)
		c->gone = c->began;
	c->next = now_ns() + MAX(PAUSE * (cpu_ns() - before), AT_LEAST_NS);
	return c->gone;
}

void callers_free(struct callers *c)
{
	if (!c)
		return;
	user_times_close(&c->times);
	free(c->v);
	free(c);
}
