/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What waits in a unix socket, read without taking it: SO_PEEK_OFF 0, then peek after peek, then the option
 * as it was.
 *
 * In a stream one peek takes as much as there is, up to the end of the first message that carries
 * descriptors, and does not say where that message starts: a short read would then get them with bytes that
 * were sent before.  But the kernel copies a message whole or not at all: the same peek into memory that ends
 * one byte early fails at the last message, and its result is where that begins.
 *
 * Every peek makes new copies of queued descriptors for us; they are identified and closed like any other.
 */
#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include "base/util.h"
#include "state/sockets/unix.h"

#define BUFFER_SIZE (4u << 20)
#define MAX_FDS     253

union control {
	struct cmsghdr align;
	uint8_t bytes[CMSG_SPACE(MAX_FDS * sizeof(int)) + CMSG_SPACE(sizeof(struct ucred)) + 256];
};

/* Takes every descriptor in, also after an error: they are ours to close. */
static int take_control(struct capture *c, const struct fd_facts *f, struct msghdr *h, Ferry__UnixMessage *m,
			struct error *e)
{
	for (struct cmsghdr *k = CMSG_FIRSTHDR(h); k; k = CMSG_NXTHDR(h, k)) {
		size_t n = k->cmsg_len - CMSG_LEN(0);

		if (k->cmsg_level != SOL_SOCKET)
			continue;
		if (k->cmsg_type == SCM_CREDENTIALS && n >= sizeof(struct ucred)) {
			const struct ucred *u = (const struct ucred *)CMSG_DATA(k);

			m->has_creds = true;
			m->pid = u->pid;
			m->uid = u->uid;
			m->gid = u->gid;
		}
		if (k->cmsg_type != SCM_RIGHTS)
			continue;
		const int *fds = (const int *)CMSG_DATA(k);

		m->files = xcalloc(n / sizeof(int), sizeof(*m->files));
		for (size_t i = 0; i < n / sizeof(int); i++) {
			if (error_is(e))
				close(fds[i]);
			else if (files_capture_extra(c, f->pid, f->fd, fds[i], &m->files[m->n_files], e) >= 0)
				m->n_files++;
		}
	}
	if (!error_is(e) && h->msg_flags & (MSG_CTRUNC | MSG_TRUNC))
		error_say(e, EMSGSIZE,
			  "pid %d fd %d: a message in its unix socket is too large, or the limit of open "
			  "files was met "
			  "while reading it",
			  f->pid, f->fd);
	return error_is(e) ? -e->code : 0;
}

/* 1: a message, 0: no more. */
static int peek_one(struct capture *c, const struct fd_facts *f, uint8_t *buffer, Ferry__UnixMessage **ret,
		    struct error *e)
{
	union control control;
	struct sockaddr_un from;
	struct iovec v = {buffer, BUFFER_SIZE};
	struct msghdr h = {.msg_name = &from,
			   .msg_namelen = sizeof(from),
			   .msg_iov = &v,
			   .msg_iovlen = 1,
			   .msg_control = &control,
			   .msg_controllen = sizeof(control)};
	ssize_t n = recvmsg(f->copy, &h, MSG_PEEK | MSG_DONTWAIT | MSG_CMSG_CLOEXEC);

	if (n < 0)
		return errno == EAGAIN || errno == ECONNRESET || errno == ENOTCONN
			       ? 0
			       : error_set(e, errno, "pid %d fd %d: reading what waits in its unix socket",
					   f->pid, f->fd);
	Ferry__UnixMessage *m = *ret = xmalloc(sizeof(*m));
	const size_t head = offsetof(struct sockaddr_un, sun_path);

	ferry__unix_message__init(m);
	m->data.data = xmemdup(buffer, n);
	m->data.len = n;
	if (f->type == SOCK_DGRAM && h.msg_namelen > head) {
		m->from.len = from.sun_path[0] ? strnlen(from.sun_path, h.msg_namelen - head)
					       : h.msg_namelen - head;
		m->from.data = xmemdup(from.sun_path, m->from.len);
	}
	int r = take_control(c, f, &h, m, e);

	return r < 0 ? r : 1;
}

/* Before anything is changed: is there anything? A peek moves an offset that the program has set. */
static bool is_empty(const struct fd_facts *f)
{
	uint8_t byte;
	struct iovec v = {&byte, 1};
	struct msghdr h = {.msg_iov = &v, .msg_iovlen = 1};
	ssize_t n = recvmsg(f->copy, &h, MSG_PEEK | MSG_DONTWAIT);

	return n < 0 || (n == 0 && f->type == SOCK_STREAM);
}

/* Room that ends where memory ends. */
struct room {
	uint8_t *start;
	size_t size;
};

static int room_make(struct room *r, struct error *e)
{
	r->size = BUFFER_SIZE;
	r->start = mmap(NULL, r->size + PAGE_SIZE_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (r->start == MAP_FAILED || mprotect(r->start, r->size, PROT_READ | PROT_WRITE) < 0)
		return error_set(e, errno, "making room for what waits in sockets");
	return 0;
}

/* Where the last message of the @n bytes at @off starts. */
static int find_start(const struct fd_facts *f, const struct room *room, int off, size_t n, size_t *ret,
		      struct error *e)
{
	int after = off + n;
	struct iovec v = {room->start + room->size - (n - 1), n};
	struct msghdr h = {.msg_iov = &v, .msg_iovlen = 1};

	if (setsockopt(f->copy, SOL_SOCKET, SO_PEEK_OFF, &off, sizeof(off)) < 0)
		return error_set(e, errno, "pid %d fd %d: going back in its unix socket", f->pid, f->fd);
	ssize_t got = recvmsg(f->copy, &h, MSG_PEEK | MSG_DONTWAIT);

	if (got < 0 && errno != EFAULT)
		return error_set(e, errno, "pid %d fd %d: reading what waits in its unix socket again",
				 f->pid, f->fd);
	*ret = got > 0 && (size_t)got < n ? got : 0;
	if (setsockopt(f->copy, SOL_SOCKET, SO_PEEK_OFF, &after, sizeof(after)) < 0)
		return error_set(e, errno, "pid %d fd %d: going on in its unix socket", f->pid, f->fd);
	return 0;
}

/* What was sent before, without descriptors, as a message of its own: cut off the front of @m. NULL: nothing.
 */
static Ferry__UnixMessage *split_front(Ferry__UnixMessage *m, size_t n)
{
	if (!n)
		return NULL;
	Ferry__UnixMessage *front = xmalloc(sizeof(*front));

	*front = *m;
	front->data.data = xmemdup(m->data.data, n);
	front->data.len = n;
	front->files = NULL;
	front->n_files = 0;
	m->data.len -= n;
	memmove(m->data.data, m->data.data + n, m->data.len);
	return front;
}

static int walk(struct capture *c, const struct fd_facts *f, const struct room *room, Ferry__UnixSocket *u,
		uint32_t shutdown, struct error *e)
{
	size_t cap = 0, start = 0;
	int r, off = 0;

	for (;;) {
		Ferry__UnixMessage *m = NULL, *front = NULL;

		r = peek_one(c, f, room->start, &m, e);
		if (!m)
			return r;
		bool end = m->data.len == 0 && (f->type == SOCK_STREAM || shutdown & 1);
		int n = m->data.len;

		if (r >= 0 && f->type == SOCK_STREAM && m->n_files) {
			r = find_start(f, room, off, n, &start, e);
			front = r < 0 ? NULL : split_front(m, start);
		}
		if (r < 0 || end) {
			ferry__unix_message__free_unpacked(m, NULL);
			return r < 0 ? r : 0;
		}
		off += n;
		if (front) {
			FILES_GROW(u->queue, u->n_queue, cap);
			u->queue[u->n_queue++] = front;
		}
		FILES_GROW(u->queue, u->n_queue, cap);
		u->queue[u->n_queue++] = m;
	}
}

int unix_queue_capture(struct capture *c, struct fd_facts *f, Ferry__UnixSocket *u, uint32_t shutdown,
		       struct error *e)
{
	int zero = 0, off = u->peek_off;

	if (off < 0 && is_empty(f))
		return 0;
	if (setsockopt(f->copy, SOL_SOCKET, SO_PEEK_OFF, &zero, sizeof(zero)) < 0)
		return error_set(e, errno, "pid %d fd %d: preparing to read its unix socket", f->pid, f->fd);
	struct room room;
	int r = room_make(&room, e);

	if (r >= 0)
		r = walk(c, f, &room, u, shutdown, e);
	if (room.start != MAP_FAILED)
		munmap(room.start, room.size + PAGE_SIZE_BYTES);

	if (setsockopt(f->copy, SOL_SOCKET, SO_PEEK_OFF, &off, sizeof(off)) < 0 && r >= 0)
		r = error_set(e, errno, "pid %d fd %d: putting its SO_PEEK_OFF back", f->pid, f->fd);
	return r;
}

/* --- rebuild -------------------------------------------------------------------------------------------- */

static size_t add_control(union control *control, size_t at, int type, const void *data, size_t n)
{
	struct cmsghdr *k = (struct cmsghdr *)(control->bytes + at);

	k->cmsg_level = SOL_SOCKET;
	k->cmsg_type = type;
	k->cmsg_len = CMSG_LEN(n);
	memcpy(CMSG_DATA(k), data, n);
	return at + CMSG_SPACE(n);
}

static int gather_fds(struct rebuild *r, const FileDescription *m, const Ferry__UnixMessage *message,
		      int *fds, struct error *e)
{
	if (message->n_files > MAX_FDS)
		return error_say(e, EPROTO, "pid %d fd %d: the image has a message with %zu descriptors",
				 m->pid, m->fd, message->n_files);
	for (size_t i = 0; i < message->n_files; i++) {
		fds[i] = files_host_fd(r, message->files[i]);
		if (fds[i] < 0)
			return error_say(
				e, EPROTO,
				"pid %d fd %d: the image has no open file %llu, which waits in its socket",
				m->pid, m->fd, (unsigned long long)message->files[i]);
	}
	return 0;
}

int unix_queue_send(struct rebuild *r, const FileDescription *m, const Ferry__UnixMessage *message,
		    int sender, const struct sockaddr_un *to, socklen_t to_n, struct error *e)
{
	union control control;
	int fds[MAX_FDS];
	struct iovec v = {message->data.data, message->data.len};
	struct msghdr h = {
		.msg_name = (void *)to, .msg_namelen = to ? to_n : 0, .msg_iov = &v, .msg_iovlen = 1};
	size_t used = 0;
	int ret = gather_fds(r, m, message, fds, e);

	if (ret < 0)
		return ret;
	memset(&control, 0, sizeof(control));
	if (message->n_files)
		used = add_control(&control, used, SCM_RIGHTS, fds, message->n_files * sizeof(int));
	if (message->has_creds) {
		/* Only of a process that exists: a dead sender shows as the host. */
		struct ucred u = {message->pid, message->uid, message->gid};

		if (u.pid <= 0 || (kill(u.pid, 0) < 0 && errno == ESRCH))
			u.pid = getpid();
		used = add_control(&control, used, SCM_CREDENTIALS, &u, sizeof(u));
	}
	if (used) {
		h.msg_control = &control;
		h.msg_controllen = used;
	}
	while (v.iov_len || h.msg_control || !message->data.len) {
		ssize_t n = sendmsg(sender, &h, MSG_DONTWAIT | MSG_NOSIGNAL);

		if (n < 0)
			return error_set(e, errno,
					 "pid %d fd %d: putting %zu bytes back into its unix socket%s",
					 m->pid, m->fd, v.iov_len,
					 errno == EAGAIN ? " (see net.unix.max_dgram_qlen)" : "");
		v.iov_base = (uint8_t *)v.iov_base + n;
		v.iov_len -= n;
		h.msg_control = NULL;
		h.msg_controllen = 0;
		if (!v.iov_len)
			break;
	}
	return 0;
}
