/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pipes.  The content is read without consuming it: tee(2) into a pipe of our own, of the same size because
 * tee copies no more buffers than there are slots.  Packets (O_DIRECT) keep their boundaries on that way.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <poll.h>
#include <string.h>
#include <sys/ioctl.h>

#include "base/util.h"
#include "state/files/pipe.h"

/* open(2) always sets this on 64-bit kernels, pipe2(2) never: tells ends that were opened again through
 * /proc. */
#define LARGEFILE 0100000

static bool can_read(int flags)
{
	return (flags & O_ACCMODE) != O_WRONLY;
}

static bool can_write(int flags)
{
	return (flags & O_ACCMODE) != O_RDONLY;
}

static struct pipe_seen *seen_of(struct capture *c, const struct fd_facts *f)
{
	struct files_capture *fc = files_capture_of(c);
	uint32_t *slot = index_map_at(&fc->by_pipe, f->st.st_dev, f->st.st_ino);

	if (!*slot) {
		FILES_GROW(fc->pipes, fc->n_pipes, fc->cap_pipes);
		fc->pipes[fc->n_pipes++] = (struct pipe_seen){.id = f->id, .any = f->id - 1};
		*slot = fc->n_pipes;
	}
	return &fc->pipes[*slot - 1];
}

static void add_chunk(Ferry__PipeFile *p, const void *data, size_t n)
{
	p->chunks = xrealloc(p->chunks, (p->n_chunks + 1) * sizeof(*p->chunks));
	p->chunks[p->n_chunks].data = xmemdup(data, n);
	p->chunks[p->n_chunks++].len = n;
}

/* @fd: any end. */
static int copy_content(int fd, Ferry__PipeFile *m, struct error *e)
{
	int queued = 0;

	if (ioctl(fd, FIONREAD, &queued) < 0)
		return error_set(e, errno, "asking for the amount of data in a pipe");
	if (!queued)
		return 0;
	char path[64];
	int own[2], tee_from = fd, ret = 0;
	cleanup_close int reader = -1;

	if (!can_read(fcntl(fd, F_GETFL))) {
		snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
		reader = tee_from = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
		if (reader < 0)
			return error_set(e, errno, "opening the other end of a pipe");
	}
	if (pipe2(own, O_CLOEXEC | O_NONBLOCK) < 0)
		return error_set(e, errno, "making a pipe");
	cleanup_close int own_read = own[0], own_write = own[1];

	if (fcntl(own_write, F_SETPIPE_SZ, m->size) < 0)
		return error_set(e, errno, "making a pipe of %u bytes", m->size);
	ssize_t copied = tee(tee_from, own_write, INT32_MAX, SPLICE_F_NONBLOCK);

	if (copied != queued)
		return error_set(e, copied < 0 ? errno : EIO, "copying %d bytes from a pipe", queued);
	cleanup_free uint8_t *buffer = xmalloc(queued);

	while (ret >= 0 && copied > 0) {
		ssize_t n = read(own_read, buffer, queued);

		if (n <= 0)
			ret = error_set(e, n < 0 ? errno : EIO, "reading %zd bytes of a pipe", copied);
		else
			add_chunk(m, buffer, n);
		copied -= n;
	}
	return ret;
}

int pipe_capture_end(struct capture *c, struct fd_facts *f, FileDescription *m, bool fifo, struct error *e)
{
	struct pipe_seen *p = seen_of(c, f);
	int size = fcntl(f->copy, F_GETPIPE_SZ);
	struct pollfd poll_end = {.fd = f->copy, .events = POLLIN | POLLOUT};

	if (size < 0)
		return error_set(e, errno, "pid %d fd %d: asking for the size of its pipe", f->pid, f->fd);
	p->fifo = fifo;
	p->has_reader |= can_read(f->flags);
	p->has_writer |= can_write(f->flags);
	if (poll(&poll_end, 1, 0) >= 0)
		p->events = poll_end.revents;
	m->pipe = xmalloc(sizeof(*m->pipe));
	ferry__pipe_file__init(m->pipe);
	m->pipe->pipe = p->id;
	m->pipe->size = size;
	m->pipe->deleted = fifo && f->st.st_nlink == 0;
	if (f->frozen && !p->taken && can_read(f->flags)) {
		p->taken = true;
		if (copy_content(f->copy, m->pipe, e) < 0)
			return error_prefix(e, "pid %d fd %d", f->pid, f->fd);
	}
	p->packets |= f->flags & O_DIRECT;
	return 0;
}

/* No reader in the tree: the content is there all the same, for whoever opens the pipe through /proc. */
static int take_from_writer(struct capture *c, struct pipe_seen *p, Ferry__Files *all, struct error *e)
{
	struct files_capture *f = files_capture_of(c);
	cleanup_close int copy = files_copy_of(c, &f->ofds[p->any], e);

	if (copy < 0)
		return copy;
	for (size_t i = 0; i < all->n_files; i++)
		if (all->files[i]->id == p->any + 1)
			return copy_content(copy, all->files[i]->pipe, e);
	return 0;
}

int pipe_settle(struct capture *c, Ferry__Files *all, struct error *e)
{
	struct files_capture *f = files_capture_of(c);

	for (size_t i = 0; i < f->n_pipes; i++) {
		struct pipe_seen *p = &f->pipes[i];
		const struct ofd *o = &f->ofds[p->any];

		/* Only one kind of end in the tree, and the other one is open somewhere. */
		if (!p->fifo && !f->in_flight &&
		    ((!p->has_writer && !(p->events & POLLHUP)) ||
		     (!p->has_reader && !(p->events & POLLERR))))
			return error_say(e, ENOTSUP,
					 "pid %d fd %d: the %s end of its pipe [%llu] is open in a process "
					 "outside the tree, which cannot be moved; a dump with --external "
					 "pipe[%llu] leaves it to the caller of the restore",
					 o->seen_pid, o->seen_fd, p->has_writer ? "reading" : "writing",
					 (unsigned long long)o->st.st_ino, (unsigned long long)o->st.st_ino);
		if (f->frozen && !p->taken) {
			p->taken = true;
			if (take_from_writer(c, p, all, e) < 0)
				return error_prefix(e, "pid %d fd %d", o->seen_pid, o->seen_fd);
		}
	}
	for (size_t i = 0; i < all->n_files; i++) {
		Ferry__PipeFile *m = all->files[i]->pipe;
		const struct stat *st = &f->ofds[all->files[i]->id - 1].st;

		if (m && m->n_chunks)
			m->packets =
				m->n_chunks > 1 ||
				f->pipes[index_map_find(&f->by_pipe, st->st_dev, st->st_ino) - 1].packets;
	}
	return 0;
}

/* --- rebuild -------------------------------------------------------------------------------------------- */

struct pipe_object *pipe_object_of(struct rebuild *r, const FileDescription *m, bool *ret_new)
{
	struct files_rebuild *f = files_rebuild_of(r);
	uint32_t *slot = index_map_at(&f->pipe_by_id, m->pipe->pipe, 0);

	*ret_new = !*slot;
	if (!*slot) {
		FILES_GROW(f->pipes, f->n_pipes, f->cap_pipes);
		f->pipes[f->n_pipes++] = (struct pipe_object){0};
		*slot = f->n_pipes;
	}
	return &f->pipes[*slot - 1];
}

int pipe_set_size(int fd, const FileDescription *m, struct error *e)
{
	if (fcntl(fd, F_GETPIPE_SZ) == (int)m->pipe->size)
		return 0;
	if (fcntl(fd, F_SETPIPE_SZ, m->pipe->size) < 0)
		return error_set(e, errno, "pid %d fd %d: making its pipe %u bytes large%s", m->pid, m->fd,
				 m->pipe->size,
				 errno == EPERM ? " (see fs.pipe-max-size, fs.pipe-user-pages-soft)" : "");
	return 0;
}

int pipe_fill(struct rebuild *r, const FileDescription *m, struct error *e)
{
	bool is_new;

	if (!m->pipe->n_chunks)
		return 0;
	struct pipe_object *o = pipe_object_of(r, m, &is_new);
	int end = fd_stock_get(&files_rebuild_of(r)->stock, o->write, e);

	if (end < 0)
		return end;
	int flags = fcntl(end, F_GETFL);

	/* One write, one packet; without it a write joins what is there. */
	if (fcntl(end, F_SETFL, (flags & ~O_DIRECT) | O_NONBLOCK | (m->pipe->packets ? O_DIRECT : 0)) < 0)
		return error_set(e, errno, "pid %d fd %d: preparing to fill its pipe", m->pid, m->fd);
	for (size_t i = 0; i < m->pipe->n_chunks; i++) {
		const ProtobufCBinaryData *d = &m->pipe->chunks[i];
		int ret = write_full(end, d->data, d->len);

		if (ret < 0)
			return error_set(e, -ret, "pid %d fd %d: filling its pipe with %zu bytes", m->pid,
					 m->fd, d->len);
	}
	fcntl(end, F_SETFL, flags);
	return 0;
}

void pipes_free(struct files_rebuild *f)
{
	free(f->pipes);
	f->pipes = NULL;
	f->n_pipes = f->cap_pipes = 0;
	index_map_deinit(&f->pipe_by_id);
}

static bool pipe_match(const struct fd_facts *f)
{
	return S_ISFIFO(f->st.st_mode) && !strcmp(f->link, "pipe:") && !(f->flags & O_PATH);
}

static int pipe_capture(struct capture *c, struct fd_facts *f, FileDescription *m, struct error *e)
{
	return pipe_capture_end(c, f, m, false, e);
}

static int pipe_open(struct rebuild *r, const FileDescription *m, int *ret_fd, struct error *e)
{
	bool is_new;

	if (!m->pipe)
		return error_say(e, EPROTO, "the image says nothing of pipe %llu", (unsigned long long)m->id);
	struct pipe_object *o = pipe_object_of(r, m, &is_new);
	struct fd_stock *stock = &files_rebuild_of(r)->stock;

	if (is_new) {
		int ends[2];

		if (pipe2(ends, O_CLOEXEC) < 0)
			return error_set(e, errno, "pid %d fd %d: making a pipe", m->pid, m->fd);
		o->read = fd_stock_add(stock, ends[0]);
		o->write = fd_stock_add(stock, ends[1]);
		int ret = pipe_set_size(ends[1], m, e);

		if (ret < 0)
			return ret;
	}
	int access = m->flags & O_ACCMODE;
	bool *given = access == O_RDONLY ? &o->read_given : &o->write_given;
	int end = fd_stock_get(stock, access == O_RDONLY ? o->read : o->write, e), fd;

	if (end < 0)
		return end;
	if (access == O_RDWR || *given || m->flags & LARGEFILE) {
		char path[64];

		snprintf(path, sizeof(path), "/proc/self/fd/%d", end);
		fd = open(path, access | O_CLOEXEC | O_NONBLOCK);
	} else {
		*given = true;
		fd = fcntl(end, F_DUPFD_CLOEXEC, 0);
	}
	if (fd < 0)
		return error_set(e, errno, "pid %d fd %d: opening an end of its pipe", m->pid, m->fd);
	*ret_fd = fd;
	return 0;
}

const struct fd_type fd_pipe = {
	.name = "pipe",
	.kind = FILE_KIND(PIPE),
	.match = pipe_match,
	.capture = pipe_capture,
	.settle = pipe_settle,
	.open = pipe_open,
	.connect = pipe_fill,
};
