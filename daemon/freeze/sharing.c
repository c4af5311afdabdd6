/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two processes in one memory: clone(2) with CLONE_VM and without CLONE_THREAD.  Each would get a memory of
 * its own at the destination, and what one writes the other would no longer see.
 *
 * A child of vfork(2) is in its parent's memory too, but not for long, and the thread that made it sleeps
 * until it executes or ends: that is what tells the two apart.  When the tree is frozen there is no such
 * child any more.
 *
 * kcmp(2) gives an order of memories, so n processes cost n log n calls.
 */
#include <dirent.h>
#include <errno.h>
#include <linux/kcmp.h>
#include <string.h>
#include <sys/syscall.h>

#include "base/util.h"
#include "freeze/tree.h"
#include "procfs/procfs.h"

#define PF_EXITING 0x00000004u
#define PF_KTHREAD 0x00200000u

/* The processes of the tree, one for each memory, in the kernel's order of memories. */
struct order {
	const struct process **p;
	size_t n;
};

/* Does a thread of @pid sleep in the call that made a child which uses its memory? */
static bool waits_for_child(pid_t pid)
{
	cleanup_free pid_t *tids = NULL;
	struct error ignored = ERROR_INIT;
	size_t n = 0;

	if (proc_threads(pid, &tids, &n, &ignored) < 0)
		return false;
	for (size_t i = 0; i < n; i++) {
		cleanup_free char *path = xasprintf("/proc/%d/task/%d/syscall", pid, tids[i]), *text = NULL;
		struct proc_stat st;
		long nr = -1;

		if (proc_stat_read(pid, tids[i], &st, &ignored) < 0 || st.state != 'D' ||
		    read_file(path, &text) < 0)
			continue;
		nr = strtol(text, NULL, 10);
		if (nr == SYS_vfork || nr == SYS_clone || nr == SYS_clone3)
			return true;
	}
	return false;
}

/* Where @pid belongs; *ret_same is the process of the order with the same memory, or NULL. */
static size_t search(const struct order *o, pid_t pid, const struct process **ret_same)
{
	size_t low = 0, high = o->n;

	*ret_same = NULL;
	while (low < high) {
		size_t mid = (low + high) / 2;
		int c = sys_kcmp(pid, process_living(o->p[mid]), KCMP_VM, 0, 0);

		if (c == 0) {
			*ret_same = o->p[mid];
			return mid;
		}
		/* One of them is gone by now: it shares nothing. */
		if (c == 1 || c < 0)
			high = mid;
		else
			low = mid + 1;
	}
	return low;
}

/* Kernel threads have no memory, nor have processes that are exiting: all of them would seem to share it. */
static bool has_memory(pid_t pid)
{
	struct error ignored = ERROR_INIT;
	struct proc_stat st;

	return proc_stat_read(pid, 0, &st, &ignored) >= 0 && !(st.flags & (PF_EXITING | PF_KTHREAD));
}

/* Still so, and not a child of vfork? */
static bool for_good(pid_t a, pid_t b)
{
	return !waits_for_child(a) && !waits_for_child(b) && sys_kcmp(a, b, KCMP_VM, 0, 0) == 0 &&
	       has_memory(a) && has_memory(b);
}

static int sort(const struct tree *t, struct order *o, struct error *e)
{
	for (size_t i = 0; i < t->n; i++) {
		const struct process *p = t->procs[i], *same;

		if (p->state == PROCESS_ZOMBIE)
			continue;
		size_t at = search(o, process_living(p), &same);

		if (same && for_good(process_living(same), process_living(p)))
			return error_say(e, ENOTSUP,
					 "pid %d and pid %d share one memory (clone(2) with CLONE_VM), which "
					 "cannot be moved",
					 same->pid, p->pid);
		if (same)
			continue;
		memmove(o->p + at + 1, o->p + at, (o->n - at) * sizeof(struct process *));
		o->p[at] = p;
		o->n++;
	}
	return 0;
}

static int check_outsider(const struct order *o, pid_t pid, struct error *e)
{
	const struct process *same;

	search(o, pid, &same);
	if (!same || same->pid == pid || !for_good(same->pid, pid))
		return 0;
	return error_say(e, ENOTSUP,
			 "pid %d shares its memory with pid %d, which is not in the tree: it cannot be moved",
			 same->pid, pid);
}

/* Any process of the machine that is not in the tree. */
static int check_outsiders(struct tree *t, const struct order *o, struct error *e)
{
	cleanup_closedir DIR *d = opendir("/proc");
	int r = 0;

	if (!d)
		return error_set(e, errno, "open /proc");
	for (struct dirent *ent = readdir(d); ent && r >= 0; ent = readdir(d)) {
		pid_t pid = (pid_t)atoi(ent->d_name);

		if (pid > 0 && !tree_find(t, pid))
			r = check_outsider(o, pid, e);
	}
	return r;
}

int tree_check_sharing(struct tree *t, bool outside, struct error *e)
{
	cleanup_free const struct process **list = xcalloc(t->n + 1, sizeof(*list));
	struct order o = {.p = list};
	int r = sort(t, &o, e);

	if (r < 0)
		return r;
	return outside ? check_outsiders(t, &o, e) : check_outsider(&o, t->procs[0]->ppid, e);
}
