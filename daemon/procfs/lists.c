/* SPDX-License-Identifier: Apache-2.0 */
/* Threads, children and descriptors of a process. */
#include <errno.h>
#include <limits.h>
#include <string.h>

#include "base/util.h"
#include "procfs/procfs.h"
#include "procfs/text.h"

_Static_assert(sizeof(pid_t) == sizeof(int), "proc_dir_numbers fills arrays of pid_t");

int proc_threads(pid_t pid, pid_t **ret, size_t *ret_n, struct error *e)
{
	char path[64];
	cleanup_free pid_t *v = NULL;
	size_t n;

	snprintf(path, sizeof(path), "/proc/%d/task", pid);
	int r = proc_dir_numbers(path, &v, &n);

	if (r == 0 && n == 0)
		r = -ESRCH;
	if (r < 0)
		return error_set(e, -r, "process %d: cannot list its threads (%s)", pid, path);
	for (size_t i = 1; i < n; i++) {
		if (v[i] != pid)
			continue;
		memmove(v + 1, v, i * sizeof(*v)); /* the leader first, the order of the others is kept */
		v[0] = pid;
	}
	*ret = TAKE_PTR(v);
	*ret_n = n;
	return 0;
}

pid_t proc_living(pid_t pid)
{
	cleanup_free pid_t *tids = NULL;
	struct error ignore = ERROR_INIT;
	struct proc_stat st;
	size_t n = 0;

	if (proc_stat_read(pid, 0, &st, &ignore) < 0 || st.state != 'Z' || st.num_threads < 2 ||
	    proc_threads(pid, &tids, &n, &ignore) < 0)
		return pid;
	return n > 1 && tids[0] == pid ? tids[1] : n && tids[0] != pid ? tids[0] : pid;
}

struct list {
	pid_t *v;
	size_t n, cap;
};

static void list_add(struct list *l, pid_t pid)
{
	if (l->n == l->cap) {
		l->cap = l->cap ? l->cap * 2 : 16;
		l->v = xrealloc(l->v, l->cap * sizeof(*l->v));
	}
	l->v[l->n++] = pid;
}

static int compare(const void *a, const void *b)
{
	pid_t x = *(const pid_t *)a, y = *(const pid_t *)b;

	return (x > y) - (x < y);
}

static int add_children_text(struct list *l, const char *text)
{
	for (const char *p = text;;) {
		uint64_t v;

		while (*p == ' ' || *p == '\n')
			p++;
		if (!*p)
			return 0;
		if (!text_u64(&p, 10, &v) || v > INT_MAX)
			return -EINVAL;
		list_add(l, v);
	}
}

/* For kernels without task/TID/children (no CONFIG_PROC_CHILDREN). */
static int scan_for_parent(pid_t pid, struct list *l, struct error *e)
{
	cleanup_free int *pids = NULL;
	size_t n;
	int r = proc_dir_numbers("/proc", &pids, &n);

	if (r < 0)
		return error_set(e, -r, "process %d: cannot list /proc to find its children", pid);
	for (size_t i = 0; i < n; i++) {
		struct error ignored = ERROR_INIT; /* it went meanwhile */
		struct proc_stat s;

		if (proc_stat_read(pids[i], 0, &s, &ignored) == 0 && s.ppid == pid)
			list_add(l, pids[i]);
	}
	return 0;
}

static int children(pid_t pid, const pid_t *tids, size_t n, struct list *l, struct error *e)
{
	for (size_t i = 0; i < n; i++) {
		char path[64];
		cleanup_free char *text = NULL;

		snprintf(path, sizeof(path), "/proc/%d/task/%d/children", pid, tids[i]);
		ssize_t r = read_file(path, &text);

		if (r == -ENOENT && access("/proc/thread-self/children", F_OK) < 0)
			return scan_for_parent(pid, l, e);
		if (r == -ENOENT || r == -ESRCH)
			continue; /* the thread is gone, its children are another's now */
		if (r >= 0)
			r = add_children_text(l, text);
		if (r < 0)
			return error_set(e, -r, "process %d: cannot read its children from %s", pid, path);
	}
	return 0;
}

int proc_children(pid_t pid, pid_t **ret, size_t *ret_n, struct error *e)
{
	cleanup_free pid_t *tids = NULL;
	struct list l = {0};
	size_t n, k = 0;
	int r = proc_threads(pid, &tids, &n, e);

	if (r == 0)
		r = children(pid, tids, n, &l, e);
	if (r < 0) {
		free(l.v);
		return r;
	}
	if (l.n)
		qsort(l.v, l.n, sizeof(*l.v), compare);
	for (size_t i = 0; i < l.n; i++) /* one that changed its parent thread may come twice */
		if (!k || l.v[k - 1] != l.v[i])
			l.v[k++] = l.v[i];
	*ret = l.v ? l.v : xcalloc(1, sizeof(pid_t));
	*ret_n = k;
	return 0;
}

int proc_pids(pid_t **ret, size_t *ret_n, struct error *e)
{
	int r = proc_dir_numbers("/proc", ret, ret_n);

	return r < 0 ? error_set(e, -r, "cannot list the processes in /proc") : 0;
}

int proc_fds(pid_t pid, int **ret, size_t *ret_n, struct error *e)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/fd", pid);
	int r = proc_dir_numbers(path, ret, ret_n);

	return r < 0 ? error_set(e, -r, "process %d: cannot list its descriptors (%s)", pid, path) : 0;
}
