/* SPDX-License-Identifier: Apache-2.0 */
/*
 * inotify.  fdinfo tells each watch by number, mask, inode and file handle; the name is found from these.
 * Events that wait to be read cannot be looked at without taking them away, so a queue that is not empty when
 * the program is frozen is waited for (inotify_wait.c), and refused if that does not help.  It is looked at
 * before anything else is captured, as reading a deleted file or a FIFO is an event, too.
 *
 * Rebuild: watches get their numbers by INOTIFY_IOC_SETNEXTWD, at the very end, when nothing opens or closes
 * files any more: a watch would report what the rebuild does.
 */
#include <errno.h>
#include <linux/types.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "base/util.h"
#include "state/files/files.h"
#include "state/files/inode_path.h"

#define SET_NEXT_WD _IOW('I', 0, __s32)
/* What may be given to inotify_add_watch(2) of what fdinfo shows. */
#define KEPT (IN_ALL_EVENTS | IN_EXCL_UNLINK | IN_ONESHOT)
/* Numbers of watches that were removed are not given out again soon: events of them may still be known. */
#define WD_GAP 4096

struct watch {
	int wd;
	uint32_t mask;
	struct inode_name inode;
};

bool inotify_is(const char *link)
{
	return !strcmp(link, "anon_inode:inotify") || !strcmp(link, "anon_inode:[inotify]");
}

static bool inotify_match(const struct fd_facts *f)
{
	return inotify_is(f->link);
}

/* "inotify wd:1 ino:e sdev:800013 mask:800afce ignored_mask:0 fhandle-bytes:8 fhandle-type:1 f_handle:..." */
static bool parse_line(const char *line, struct watch *w)
{
	unsigned long long ino;
	unsigned dev, mask, ignored;
	int wd;

	*w = (struct watch){0};
	/* The numbers are of the kernel: none is signed but wd, which is never negative. */
	if (sscanf(line, "inotify wd:%x ino:%llx sdev:%x mask:%x ignored_mask:%x", (unsigned *)&wd, &ino,
		   &dev, &mask, &ignored) != 5)
		return false;
	w->wd = wd;
	w->mask = mask;
	w->inode.ino = ino;
	w->inode.dev = makedev(dev >> 20, dev & 0xfffff);
	return inode_name_handle(line, &w->inode);
}

static int add_watch(struct capture *c, const struct fd_facts *f, const struct watch *w, Ferry__Inotify *m,
		     size_t *cap, struct error *e)
{
	struct files_capture *fc = files_capture_of(c);
	char *path = NULL;
	int r = inode_path_find(&fc->inode_paths, &w->inode, !f->frozen, &path, e);

	if (r == -ENOENT && !error_is(e))
		return error_say(e, ENOTSUP,
				 "pid %d fd %d: its inotify watch %d is of a file (device %u:%u inode %llu) "
				 "that has no name which could be found",
				 f->pid, f->fd, w->wd, major(w->inode.dev), minor(w->inode.dev),
				 (unsigned long long)w->inode.ino);
	if (r < 0)
		return r;
	Ferry__InotifyWatch *x = xmalloc(sizeof(*x));

	ferry__inotify_watch__init(x);
	x->wd = w->wd;
	x->mask = w->mask & KEPT;
	x->path = path;
	FILES_GROW(m->watches, m->n_watches, *cap);
	m->watches[m->n_watches++] = x;
	return 0;
}

static int check_queue(pid_t pid, int fd, int copy, struct error *e)
{
	int queued = 0;

	if (ioctl(copy, FIONREAD, &queued) < 0)
		return error_set(e, errno, "pid %d fd %d: asking for the events of its inotify", pid, fd);
	return queued ? error_say(e, EAGAIN,
				  "pid %d fd %d: %d bytes of inotify events wait to be read, which cannot be "
				  "moved: try again when they are read",
				  pid, fd, queued)
		      : 0;
}

int inotify_check_queues(struct capture *c, struct error *e)
{
	struct files_capture *f = files_capture_of(c);

	for (size_t i = 0; i < f->n; i++) {
		const struct ofd *o = &f->ofds[i];

		if (!o->link || !inotify_is(o->link))
			continue;
		cleanup_close int copy = files_copy_of(c, o, e);
		int r = copy < 0 ? copy : check_queue(o->seen_pid, o->seen_fd, copy, e);

		if (r < 0)
			return r;
	}
	return 0;
}

static int inotify_capture(struct capture *c, struct fd_facts *f, FileDescription *m, struct error *e)
{
	const char *info = fd_facts_info(f, e);
	size_t cap = 0;

	if (!info)
		return -e->code;
	if (f->frozen && f->extra) {
		int r = check_queue(f->pid, f->fd, f->copy, e);

		if (r < 0)
			return r;
	}
	m->inotify = xmalloc(sizeof(*m->inotify));
	ferry__inotify__init(m->inotify);
	for (const char *line = info; line && *line;
	     line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL) {
		struct watch w;

		if (strncmp(line, "inotify ", 8) != 0)
			continue;
		if (!parse_line(line, &w))
			return error_say(e, EIO,
					 "pid %d fd %d: fdinfo shows a watch in an unknown form: %.*s",
					 f->pid, f->fd, (int)MIN(strcspn(line, "\n"), 120ul), line);
		int r = add_watch(c, f, &w, m->inotify, &cap, e);

		if (r < 0)
			return r;
	}
	return 0;
}

/* --- rebuild ------------------------------------------------------------------------------------------ */

static int need_part(const FileDescription *m, struct error *e)
{
	return m->inotify ? 0
			  : error_say(e, EPROTO, "the image says nothing of inotify %llu",
				      (unsigned long long)m->id);
}

static int inotify_check(struct rebuild *r, const FileDescription *m, struct error *e)
{
	int ret = need_part(m, e);

	for (size_t i = 0; ret >= 0 && i < m->inotify->n_watches; i++) {
		cleanup_free char *path = files_host_path(r, m->inotify->watches[i]->path);
		struct stat st;

		/* Of a process that is still to be made here. */
		if (strncmp(path, "/proc/", 6) != 0 && lstat(path, &st) < 0)
			return error_set(e, errno,
					 "pid %d fd %d: %s, which its inotify watches, is missing here",
					 m->pid, m->fd, path);
	}
	return ret;
}

static int inotify_open(struct rebuild *r, const FileDescription *m, int *ret_fd, struct error *e)
{
	int ret = need_part(m, e);

	(void)r;
	if (ret < 0)
		return ret;
	*ret_fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	return *ret_fd < 0 ? error_set(e, errno, "pid %d fd %d: making an inotify (see fs.inotify)", m->pid,
				       m->fd)
			   : 0;
}

static int by_number(const void *a, const void *b)
{
	const Ferry__InotifyWatch *x = *(const Ferry__InotifyWatch *const *)a,
				  *y = *(const Ferry__InotifyWatch *const *)b;

	return (x->wd > y->wd) - (x->wd < y->wd);
}

static int watch_again(struct rebuild *r, const FileDescription *m, const Ferry__InotifyWatch *w, int fd,
		       struct error *e)
{
	cleanup_free char *path = files_host_path(r, w->path);

	if (ioctl(fd, SET_NEXT_WD, w->wd) < 0)
		return error_set(e, errno,
				 "pid %d fd %d: giving number %d to a watch (INOTIFY_IOC_SETNEXTWD)", m->pid,
				 m->fd, w->wd);
	int wd = inotify_add_watch(fd, path, (w->mask & KEPT) | IN_DONT_FOLLOW);

	if (wd < 0)
		return error_set(e, errno, "pid %d fd %d: watching %s again%s", m->pid, m->fd, path,
				 errno == ENOSPC ? " (see fs.inotify.max_user_watches)" : "");
	if (wd != w->wd)
		return error_say(e, EEXIST, "pid %d fd %d: watch %d of %s became number %d", m->pid, m->fd,
				 w->wd, path, wd);
	return 0;
}

static int inotify_late(struct rebuild *r, const FileDescription *m, int fd, struct error *e)
{
	const Ferry__Inotify *x = m->inotify;
	int ret = 0;

	if (!x->n_watches)
		return 0;
	qsort(x->watches, x->n_watches, sizeof(*x->watches), by_number);
	for (size_t i = 0; i < x->n_watches && ret >= 0; i++)
		ret = watch_again(r, m, x->watches[i], fd, e);
	int last = x->watches[x->n_watches - 1]->wd;

	if (ret >= 0 && last < INT32_MAX - WD_GAP)
		(void)ioctl(fd, SET_NEXT_WD, last + WD_GAP);
	return ret;
}

const struct fd_type fd_inotify = {
	.name = "inotify",
	.kind = FILE_KIND(INOTIFY),
	.match = inotify_match,
	.capture = inotify_capture,
	.check = inotify_check,
	.open = inotify_open,
	.late = inotify_late,
};
