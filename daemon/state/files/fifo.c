/* SPDX-License-Identifier: Apache-2.0 */
/* Named pipes: opened again by their path; one without a name is made again and its name removed. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "base/util.h"
#include "state/files/pipe.h"

static bool fifo_match(const struct fd_facts *f)
{
	return S_ISFIFO(f->st.st_mode) && !(f->flags & O_PATH);
}

static int fifo_capture(struct capture *c, struct fd_facts *f, FileDescription *m, struct error *e)
{
	int r = f->st.st_nlink ? files_need_name(f, "FIFO", e) : 0;

	if (r < 0)
		return r;
	m->regular = xmalloc(sizeof(*m->regular));
	ferry__regular_file__init(m->regular);
	m->regular->path = f->st.st_nlink ? xstrdup(f->link) : files_strip_deleted(f->link);
	m->regular->mode = f->st.st_mode;
	m->regular->exists_only = true;
	return pipe_capture_end(c, f, m, true, e);
}

static int need_parts(const FileDescription *m, struct error *e)
{
	return m->regular && m->pipe ? 0
				     : error_say(e, EPROTO, "the image says nothing of FIFO %llu",
						 (unsigned long long)m->id);
}

static int fifo_check(struct rebuild *r, const FileDescription *m, struct error *e)
{
	int ret = need_parts(m, e);

	if (ret < 0 || m->pipe->deleted)
		return ret;
	cleanup_free char *path = files_host_path(r, m->regular->path);
	struct stat st;

	if (lstat(path, &st) < 0)
		return error_set(e, errno, "pid %d fd %d: FIFO %s, which it has open, is missing here",
				 m->pid, m->fd, path);
	if (!S_ISFIFO(st.st_mode))
		return error_say(e, ENOENT, "pid %d fd %d: %s is no FIFO here, but was one", m->pid, m->fd,
				 path);
	return 0;
}

/* Opened for both directions first: then nothing that follows waits for the other end. */
static int open_helper(struct rebuild *r, const FileDescription *m, struct error *e)
{
	int err = 0, fd;

	if (!m->pipe->deleted) {
		int ret = fifo_check(r, m, e);

		if (ret < 0)
			return ret;
		cleanup_free char *path = files_host_path(r, m->regular->path);

		fd = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
		return fd < 0 ? error_set(e, errno, "pid %d fd %d: opening FIFO %s", m->pid, m->fd, path)
			      : fd;
	}
	for (unsigned i = 0;; i++) {
		cleanup_free char *name = files_temporary_name(r, m->regular->path, i);

		if (!name)
			return error_set(e, err, "pid %d fd %d: making deleted FIFO %s again", m->pid, m->fd,
					 m->regular->path);
		if (mkfifo(name, m->regular->mode & 07777) == 0) {
			fd = open(name, O_RDWR | O_NONBLOCK | O_CLOEXEC | O_NOFOLLOW);
			err = errno;
			unlink(name);
			return fd < 0 ? error_set(e, err, "pid %d fd %d: opening FIFO %s", m->pid, m->fd,
						  name)
				      : fd;
		}
		err = errno;
	}
}

static int fifo_open(struct rebuild *r, const FileDescription *m, int *ret_fd, struct error *e)
{
	bool is_new;
	int ret = need_parts(m, e);

	if (ret < 0)
		return ret;
	struct pipe_object *o = pipe_object_of(r, m, &is_new);

	if (is_new) {
		int helper = open_helper(r, m, e);

		if (helper < 0)
			return helper;
		o->read = o->write = fd_stock_add(&files_rebuild_of(r)->stock, helper);
		ret = pipe_set_size(helper, m, e);
		if (ret < 0)
			return ret;
	}
	int helper = fd_stock_get(&files_rebuild_of(r)->stock, o->read, e);
	char path[64];

	if (helper < 0)
		return helper;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", helper);
	*ret_fd = open(path, (m->flags & O_ACCMODE) | O_CLOEXEC | O_NONBLOCK);
	return *ret_fd < 0
		       ? error_set(e, errno, "pid %d fd %d: opening FIFO %s", m->pid, m->fd, m->regular->path)
		       : 0;
}

const struct fd_type fd_fifo = {
	.name = "FIFO",
	.kind = FILE_KIND(FIFO),
	.match = fifo_match,
	.capture = fifo_capture,
	.check = fifo_check,
	.open = fifo_open,
	.connect = pipe_fill,
};
