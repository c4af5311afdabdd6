/* SPDX-License-Identifier: Apache-2.0 */
#include "state/files/stock.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/util.h"
#include "state/files/files.h"

#define STACK_SIZE (64u << 10)
#define LEAST_ROOM 16u
#define PID_TRIES  64

int fd_stock_init(struct fd_stock *s, struct error *e)
{
	struct rlimit l;
	size_t open = files_count(getpid());

	if (getrlimit(RLIMIT_NOFILE, &l) < 0)
		return error_set(e, errno, "reading the limit of open files");
	l.rlim_cur = l.rlim_max;
	if (setrlimit(RLIMIT_NOFILE, &l) < 0)
		return error_set(e, errno, "raising the limit of open files");
	if (l.rlim_cur < open + 2 * LEAST_ROOM)
		return error_say(
			e, EMFILE,
			"%zu files are open here, and the limit is %llu (ulimit -n): too few to make others",
			open, (unsigned long long)l.rlim_cur);
	s->room = (l.rlim_cur - open) / 2;
	return 0;
}

uint32_t fd_stock_add(struct fd_stock *s, int fd)
{
	FILES_GROW(s->v, s->n, s->cap);
	s->v[s->n++] = (struct fd_kept){.here = fd, .there = -1};
	s->n_here++;
	return s->n;
}

int fd_stock_get(struct fd_stock *s, uint32_t place, struct error *e)
{
	struct fd_kept *k = &s->v[place - 1];

	if (k->here >= 0)
		return k->here;
	const struct fd_holder *h = &s->holders[k->holder - 1];
	int fd = sys_pidfd_getfd(h->pidfd, k->there);

	if (fd < 0)
		return error_set(e, -fd, "fetching descriptor %d back from process %d", k->there, h->pid);
	k->here = fd;
	s->n_here++;
	return fd;
}

void fd_stock_where(const struct fd_stock *s, uint32_t place, pid_t *ret_pid, int *ret_fd)
{
	const struct fd_kept *k = &s->v[place - 1];

	*ret_pid = k->holder ? s->holders[k->holder - 1].pid : getpid();
	*ret_fd = k->holder ? k->there : k->here;
}

void fd_stock_close(struct fd_stock *s, uint32_t place)
{
	struct fd_kept *k = &s->v[place - 1];

	if (k->here < 0)
		return;
	close(k->here);
	k->here = -1;
	s->n_here--;
}

/* --- holders -------------------------------------------------------------------------------------------- */

struct task_of_holder {
	pid_t parent;
	size_t n;
	int keep[]; /* ascending */
};

/* The stack begins with what is to be done. */
static int __attribute__((no_sanitize("address", "undefined"))) hold(void *arg)
{
	const struct task_of_holder *t = arg;
	uint64_t all = ~0ull;
	unsigned from = 0;

	syscall(SYS_rt_sigprocmask, SIG_SETMASK, &all, NULL, sizeof(all));
	syscall(SYS_prctl, PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
	if (syscall(SYS_getppid) != t->parent)
		syscall(SYS_exit_group, 1);
	for (size_t i = 0; i < t->n; i++) {
		if ((unsigned)t->keep[i] > from)
			syscall(SYS_close_range, from, (unsigned)t->keep[i] - 1, 0);
		from = (unsigned)t->keep[i] + 1;
	}
	syscall(SYS_close_range, from, ~0u, 0);
	while (syscall(SYS_pause) < 0)
		;
	return 0;
}

static int by_value(const void *a, const void *b)
{
	return *(const int *)a - *(const int *)b;
}

static void end_holder(struct fd_holder *h)
{
	kill(h->pid, SIGKILL);
	while (waitpid(h->pid, NULL, __WALL) < 0 && errno == EINTR)
		;
	close(h->pidfd);
	free(h->stack);
}

static int start_holder(const struct fd_stock *s, size_t n, struct fd_holder *ret, struct error *e)
{
	size_t head = sizeof(struct task_of_holder) + n * sizeof(int), at = 0;
	struct fd_holder h = {.stack = xmalloc(head + STACK_SIZE)};
	struct task_of_holder *t = h.stack;

	t->parent = getpid();
	t->n = n;
	for (size_t i = 0; i < s->n; i++)
		if (s->v[i].here >= 0 && !s->v[i].holder)
			t->keep[at++] = s->v[i].here;
	qsort(t->keep, n, sizeof(int), by_value);
	/* No signal at its end: nobody but us waits for it. */
	h.pid = clone(hold, (char *)h.stack + ((head + STACK_SIZE) & ~15ul), CLONE_VM, t);
	if (h.pid < 0) {
		int err = errno;

		free(h.stack);
		return error_set(e, err, "making a process that holds descriptors");
	}
	h.pidfd = sys_pidfd_open(h.pid, 0);
	if (h.pidfd < 0) {
		int err = -h.pidfd;

		end_holder(&h);
		return error_set(e, err, "opening a pidfd");
	}
	*ret = h;
	return 0;
}

/* One whose number nobody of the tree is to have. */
static int add_holder(struct fd_stock *s, size_t n, struct error *e)
{
	struct fd_holder unfit[PID_TRIES], h = {0};
	size_t n_unfit = 0;
	int r = start_holder(s, n, &h, e);

	while (r >= 0 && s->wanted && s->wanted(s->ctx, h.pid)) {
		unfit[n_unfit++] = h;
		r = n_unfit < PID_TRIES ? start_holder(s, n, &h, e)
					: error_say(e, EEXIST, "no process id is free for a helper");
	}
	for (size_t i = 0; i < n_unfit; i++)
		end_holder(&unfit[i]);
	if (r < 0)
		return r;
	FILES_GROW(s->holders, s->n_holders, s->cap_holders);
	s->holders[s->n_holders++] = h;
	return 0;
}

int fd_stock_trim(struct fd_stock *s, struct error *e)
{
	size_t only_here = 0;
	int r = 0;

	if (s->n_here <= s->room)
		return 0;
	for (size_t i = 0; i < s->n; i++)
		only_here += s->v[i].here >= 0 && !s->v[i].holder;
	bool all = only_here > s->room / 2;

	if (all)
		r = add_holder(s, only_here, e);
	for (size_t i = 0; i < s->n && r >= 0; i++) {
		struct fd_kept *k = &s->v[i];

		if (k->here < 0 || (!all && !k->holder))
			continue;
		if (!k->holder) {
			k->holder = s->n_holders;
			k->there = k->here;
		}
		close(k->here);
		k->here = -1;
		s->n_here--;
	}
	return r;
}

void fd_stock_free(struct fd_stock *s)
{
	for (size_t i = 0; i < s->n; i++)
		if (s->v[i].here >= 0)
			close(s->v[i].here);
	for (size_t i = 0; i < s->n_holders; i++)
		kill(s->holders[i].pid, SIGKILL);
	for (size_t i = 0; i < s->n_holders; i++)
		end_holder(&s->holders[i]);
	free(s->v);
	free(s->holders);
	s->v = NULL;
	s->holders = NULL;
	s->n = s->cap = s->n_here = s->n_holders = s->cap_holders = 0;
}
