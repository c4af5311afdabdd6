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

struct holders {
	struct holder *v;
	size_t n, cap;
};

static void add_holder(void *ctx, pid_t pid, int fd)
{
	struct holders *h = ctx;
	struct proc_stat st = {.comm = "?"};
	struct error ignore = ERROR_INIT;

	proc_stat_read(pid, 0, &st, &ignore);
	FILES_GROW(h->v, h->n, h->cap);
	h->v[h->n] = (struct holder){.pid = pid, .fd = fd};
	snprintf(h->v[h->n++].comm, sizeof(h->v->comm), "%s", st.comm);
}

/* Userfaultfds that other processes have open. */
static struct holder *find_outside(struct capture *c, size_t *ret_n)
{
	struct holders h = {0};

	files_each_outside(c, userfaultfd_is, add_holder, &h);
	*ret_n = h.n;
	return h.v;
}

int userfaultfd_preflight(struct capture *c, struct fd_facts *f, struct error *e)
{
	size_t n;
	cleanup_free struct holder *h = f->extra ? NULL : find_outside(c, &n);

	for (size_t i = 0; h && i < n; i++)
		if (sys_kcmp(h[i].pid, f->living, KCMP_FILE, h[i].fd, f->fd) == 0)
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
