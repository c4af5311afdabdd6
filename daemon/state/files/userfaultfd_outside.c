/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Monitors outside of the tree: who has a userfaultfd open is known, but not which memory it is for, so that
 * all who could be meant are named.
 */
#include <errno.h>
#include <linux/kcmp.h>
#include <string.h>

#include "base/util.h"
#include "procfs/procfs.h"
#include "state/files/files.h"
#include "state/files/userfaultfd.h"
#include "state/memory/memory.h"

struct holder {
	pid_t pid;
	int fd;
	char comm[64];
};

/* Userfaultfds that other processes have open. */
static struct holder *find_outside(struct capture *c, size_t *ret_n)
{
	cleanup_free pid_t *pids = NULL;
	struct holder *h = NULL;
	size_t n = 0, cap = 0;
	struct error ignore = ERROR_INIT;

	*ret_n = 0;
	if (proc_pids(&pids, &n, &ignore) < 0)
		return NULL;
	for (size_t i = 0; i < n; i++) {
		cleanup_free int *fds = NULL;
		struct proc_stat st = {.comm = "?"};
		size_t n_fds = 0;

		if (pids[i] == getpid() || tree_find(c->tree, pids[i]) ||
		    proc_fds(pids[i], &fds, &n_fds, &ignore) < 0)
			continue;
		for (size_t k = 0; k < n_fds; k++) {
			cleanup_free char *path = xasprintf("/proc/%d/fd/%d", pids[i], fds[k]), *link = NULL;

			if (readlink_at(AT_FDCWD, path, &link) < 0 || !userfaultfd_is(link) ||
			    tree_includes(c->tree, pids[i]))
				continue;
			proc_stat_read(pids[i], 0, &st, &ignore);
			FILES_GROW(h, *ret_n, cap);
			h[*ret_n] = (struct holder){.pid = pids[i], .fd = fds[k]};
			snprintf(h[(*ret_n)++].comm, sizeof(h->comm), "%s", st.comm);
		}
	}
	return h;
}

int userfaultfd_preflight(struct capture *c, struct fd_facts *f, struct error *e)
{
	size_t n;
	cleanup_free struct holder *h = f->extra ? NULL : find_outside(c, &n);

	for (size_t i = 0; h && i < n; i++)
		if (sys_kcmp(h[i].pid, f->pid, KCMP_FILE, h[i].fd, f->fd) == 0)
			return error_say(
				e, ENOTSUP,
				"pid %d fd %d: its userfaultfd is also held by pid %d (%s), which is not "
				"in the tree",
				f->pid, f->fd, h[i].pid, h[i].comm);
	return 0;
}

int userfaultfd_refuse_outside(struct capture *c, const struct process *p, const Ferry__Vma *v,
			       struct error *e)
{
	char who[256] = "a process that cannot be seen from here";
	size_t n, used = 0;
	cleanup_free struct holder *h = find_outside(c, &n);

	for (size_t i = 0; i < n && used < sizeof(who) - 80; i++)
		if (i == 0 || h[i].pid != h[i - 1].pid)
			used += snprintf(who + used, sizeof(who) - used, "%spid %d (%s)", i ? " or " : "",
					 h[i].pid, h[i].comm);
	return error_say(
		e, ENOTSUP,
		"pid %d: faults of its memory at 0x%llx-0x%llx are handled by %s, which is not in the "
		"tree (userfaultfd)",
		p->pid, (unsigned long long)v->start, (unsigned long long)v->end, who);
}

const Ferry__Vma *userfaultfd_find_registered(const struct process *p, uint64_t flags)
{
	const struct memory_process *mp = p->data;

	for (size_t i = 0; mp && mp->mm && i < mp->mm->n_vmas; i++)
		if (mp->mm->vmas[i]->flags & flags)
			return mp->mm->vmas[i];
	return NULL;
}

/* With no userfaultfd in the tree, the answer is known before the first round. (No tracking protects anything
 * yet, or its mappings were left out.) */
int userfaultfd_check(struct capture *c, struct error *e)
{
	const struct files_capture *f = files_capture_of(c);

	for (size_t i = 0; i < f->n; i++)
		if (f->ofds[i].link && userfaultfd_is(f->ofds[i].link))
			return 0;
	for (size_t i = 0; i < c->tree->n; i++) {
		const Ferry__Vma *v = userfaultfd_find_registered(c->tree->procs[i], VMA_UFFD_ANY);

		if (v)
			return userfaultfd_refuse_outside(c, c->tree->procs[i], v, e);
	}
	return 0;
}
