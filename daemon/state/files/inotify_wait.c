/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Events of an inotify or fanotify that wait to be read when the tree has just been stopped: they cannot be
 * taken along (inotify.c), but their reader will have read them a moment later.  So the tree runs on until
 * the queues are empty, which our copies of the descriptors tell, and is stopped again.
 */
#include <string.h>
#include <sys/ioctl.h>

#include "base/util.h"
#include "state/files/files.h"

static bool has_events(int fd)
{
	int queued = 0;

	return ioctl(fd, FIONREAD, &queued) == 0 && queued;
}

bool fanotify_is(const char *link)
{
	return !strcmp(link, "anon_inode:[fanotify]");
}

int inotify_find_queued(struct capture *c, struct inotify_queues *ret, struct error *e)
{
	struct files_capture *f = files_capture_of(c);
	int r = 0;

	*ret = (struct inotify_queues){0};
	files_capture_refresh(c);
	for (size_t i = 0; i < c->tree->n && r >= 0; i++) {
		struct fd_table *t;

		if (c->tree->procs[i]->state != PROCESS_ZOMBIE)
			r = files_table_of(c, c->tree->procs[i], &t, e);
	}
	for (size_t i = 0; i < f->n && r >= 0; i++) {
		const struct ofd *o = &f->ofds[i];

		if (!o->link || (!inotify_is(o->link) && !fanotify_is(o->link)))
			continue;
		cleanup_close int copy = files_copy_of(c, o, e);

		r = copy < 0 ? copy : 0;
		if (r < 0 || !has_events(copy))
			continue;
		if (!ret->pid && fanotify_is(o->link)) {
			ret->pid = o->seen_pid;
			ret->fd = o->seen_fd;
		}
		awaited_add(&ret->queues, TAKE_FD(copy));
	}
	if (r < 0)
		inotify_queues_deinit(ret);
	return r;
}

void inotify_wait_read(const struct inotify_queues *q, uint64_t until)
{
	awaited_wait(&q->queues, has_events, until);
}

void inotify_queues_deinit(struct inotify_queues *q)
{
	awaited_deinit(&q->queues);
	q->pid = 0;
}
