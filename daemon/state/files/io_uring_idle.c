/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests that are under way when the tree has just been stopped: they go on without it, write its memory
 * and the rings, and end.  So they are waited for before the last pages are read.  The end of a request may
 * be work that its thread has to do on its way out of the kernel: each is sent there and back.  What has not
 * ended after the time below (a read of an empty pipe, a poll, a timeout) is an error, and the tree goes on.
 */
#include <errno.h>
#include <string.h>
#include <sys/syscall.h>

#include "base/util.h"
#include "procfs/procfs.h"
#include "state/files/files.h"
#include "state/files/io_uring.h"
#include "state/memory/memory.h"
#include "state/patience.h"

static bool has_rings(const struct tree *t)
{
	for (size_t i = 0; i < t->n; i++) {
		const struct memory_process *mp = t->procs[i]->data;

		for (size_t k = 0; mp && mp->mm && k < mp->mm->n_vmas; k++)
			if (mp->mm->vmas[k]->kind == FERRY__VMA_KIND__VMA_RING)
				return true;
	}
	return false;
}

static int requests_of(struct capture *c, const struct ofd *o, int64_t *ret, struct error *e)
{
	cleanup_close int copy = files_copy_of(c, o, e);
	struct ring_look l;
	int r = copy < 0 ? copy : ring_look(copy, &l, e);

	if (r < 0)
		return error_prefix(e, "pid %d fd %d", o->pid, o->fd);
	*ret = l.in_flight;
	ring_look_deinit(&l);
	return 0;
}

/* Its threads do what ended requests have left for them. */
static int wake_threads(struct process *p, int fd, struct error *e)
{
	const uint64_t args[6] = {(uint64_t)fd, 0, 0, IORING_ENTER_GETEVENTS, 0, 0};
	int64_t result;
	int r = 0;

	for (size_t i = 0; i < p->n_threads && r >= 0; i++) {
		struct task *t = &p->threads[i]->task;

		if (t->state != TASK_STOPPED)
			continue;
		r = task_save(t, e);
		if (r >= 0)
			r = task_syscall(t, SYS_io_uring_enter, args, &result, NULL, NULL, e);
	}
	return r == -ESRCH ? 0 : r;
}

static int wake_holders(struct capture *c, uint32_t ofd, struct error *e)
{
	struct files_capture *f = files_capture_of(c);
	int r = 0;

	for (size_t i = 0; i < f->n_tables && r >= 0; i++)
		for (size_t k = 0; k < f->tables[i].n && r >= 0; k++) {
			struct process *p = tree_find(c->tree, f->tables[i].pid);

			if (f->tables[i].fds[k].ofd != ofd || !p)
				continue;
			r = wake_threads(p, f->tables[i].fds[k].fd, e);
			break;
		}
	return r;
}

/* How many requests wait for a descriptor to become ready. */
static unsigned count_polls(const struct ofd *o)
{
	cleanup_free char *path = xasprintf("/proc/%d/fdinfo/%d", o->pid, o->fd), *text = NULL;
	unsigned n = 0;

	if (read_file(path, &text) < 0)
		return 0;
	for (const char *at = strstr(text, "PollList:"); at && (at = strstr(at, "\n  op=")); at++)
		n++;
	return n;
}

static int wait_for(struct capture *c, uint32_t ofd, struct patience patience, struct error *e)
{
	int64_t n = 0;
	int r = 0;

	while ((r = requests_of(c, &files_capture_of(c)->ofds[ofd], &n, e)) >= 0 && n) {
		const struct ofd *o = &files_capture_of(c)->ofds[ofd];

		r = wake_holders(c, ofd, e);
		if (r < 0)
			return r;
		if (patience_ends(&patience))
			return error_say(e, EAGAIN,
					 "pid %d fd %d: %lld requests of its io_uring do not end (%u of them "
					 "wait for a descriptor to become ready): it can be moved when none "
					 "is under way",
					 o->pid, o->fd, (long long)n, count_polls(o));
	}
	return r;
}

int io_uring_wait_idle(struct capture *c, struct error *e)
{
	const struct patience patience = patience_begin();
	int r = 0;

	if (!has_rings(c->tree))
		return 0;
	files_capture_refresh(c);
	for (size_t i = 0; i < c->tree->n && r >= 0; i++) {
		struct fd_table *t;

		if (c->tree->procs[i]->state != PROCESS_ZOMBIE)
			r = files_table_of(c, c->tree->procs[i], &t, e);
	}
	for (uint32_t i = 0; r >= 0 && i < files_capture_of(c)->n; i++)
		if (files_capture_of(c)->ofds[i].link && ring_is(files_capture_of(c)->ofds[i].link))
			r = wait_for(c, i, patience, e);
	return r < 0 ? r : 0;
}
