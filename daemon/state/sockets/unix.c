/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Unix sockets, source side.  Both ends of a connection have to be in the tree (queued descriptors count);
 * who is the other end is asked of sock_diag.
 *
 * Limits: a pending error is not kept, for reading it would consume it.  SO_PEERCRED of a connection whose
 * maker is not in the tree any more shows the host instead.
 */
#include "state/sockets/unix.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <stddef.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "base/util.h"
#include "state/sockets/socket.h"

#ifndef SIOCUNIXFILE
#define SIOCUNIXFILE (SIOCPROTOPRIVATE + 0)
#endif
#define STATE_ESTABLISHED 1
#define STATE_LISTEN      10

static bool unix_match(const struct fd_facts *f)
{
	return f->domain == AF_UNIX;
}

static const char *type_name(int type)
{
	return type == SOCK_STREAM ? "stream" : type == SOCK_DGRAM ? "datagram" : "seqpacket";
}

/* The file of a name: it may be gone, or the name may lead to another one by now. */
static int capture_name_file(const struct fd_facts *f, Ferry__UnixSocket *m, struct error *e)
{
	cleanup_close int file = ioctl(f->copy, SIOCUNIXFILE);
	cleanup_free char *path = NULL;
	char link[64];
	struct stat st, there;

	if (file < 0 || fstat(file, &st) < 0)
		return error_set(e, errno, "pid %d fd %d: looking at the file of its unix socket %s", f->pid,
				 f->fd, m->name.data);
	m->mode = st.st_mode;
	m->uid = st.st_uid;
	m->gid = st.st_gid;
	m->name_dev = st.st_dev;
	m->name_ino = st.st_ino;
	if (m->name.data[0] != '/') {
		snprintf(link, sizeof(link), "/proc/%d/cwd", f->living);
		int r = readlink_at(AT_FDCWD, link, &m->cwd);

		if (r < 0) {
			m->cwd = (char *)protobuf_c_empty_string;
			return error_set(e, -r, "pid %d: reading %s", f->pid, link);
		}
		path = xasprintf("%s/%s", m->cwd, (char *)m->name.data);
	} else {
		path = xstrdup((char *)m->name.data);
	}
	m->deleted = st.st_nlink == 0 || lstat(path, &there) < 0 || there.st_dev != st.st_dev ||
		     there.st_ino != st.st_ino;
	return 0;
}

static int capture_name(const struct fd_facts *f, Ferry__UnixSocket *m, struct error *e)
{
	struct sockaddr_un name = {0};
	socklen_t n = sizeof(name);
	const size_t head = offsetof(struct sockaddr_un, sun_path);

	if (getsockname(f->copy, (struct sockaddr *)&name, &n) < 0)
		return error_set(e, errno, "pid %d fd %d: reading the name of its unix socket", f->pid,
				 f->fd);
	if (n <= head)
		return 0;
	/* Abstract names may hold any byte; paths are kept with a final NUL here, which does not count. */
	m->name.len = name.sun_path[0] ? strnlen(name.sun_path, n - head) : n - head;
	m->name.data = xcalloc(1, m->name.len + 1);
	memcpy(m->name.data, name.sun_path, m->name.len);
	return name.sun_path[0] ? capture_name_file(f, m, e) : 0;
}

static void capture_credentials(const struct fd_facts *f, Ferry__UnixSocket *m)
{
	struct ucred cred = {0};
	socklen_t n = sizeof(cred);

	if (getsockopt(f->copy, SOL_SOCKET, SO_PEERCRED, &cred, &n) < 0 || cred.pid <= 0)
		return;
	m->peer_pid = cred.pid;
	m->peer_uid = cred.uid;
	m->peer_gid = cred.gid;
}

static int unix_capture(struct capture *c, struct fd_facts *f, FileDescription *m, struct error *e)
{
	const struct unix_info *info;
	int r = socket_capture(f, m, false, e);

	if (r < 0)
		return r;
	Ferry__UnixSocket *u = m->socket->unix_socket = xmalloc(sizeof(*u));

	ferry__unix_socket__init(u);
	u->ino = f->st.st_ino;
	r = unix_diag_find(c, u->ino, &info, e);
	if (r < 0)
		return error_set(e, -r,
				 "pid %d fd %d: unix socket [%llu] is not known in this network namespace",
				 f->pid, f->fd, (unsigned long long)u->ino);
	u->listening = info->state == STATE_LISTEN;
	u->backlog = u->listening ? info->backlog : 0;
	u->connected = info->has_peer || (info->state == STATE_ESTABLISHED && f->type != SOCK_DGRAM);
	u->peer = info->peer;
	u->shutdown = info->shutdown & 3;
	for (size_t i = 0; i < m->socket->n_options; i++)
		if (m->socket->options[i]->level == SOL_SOCKET && m->socket->options[i]->name == SO_PASSCRED)
			u->passcred = true;
	capture_credentials(f, u);
	r = capture_name(f, u, e);
	if (r < 0)
		return r;
	socklen_t n = sizeof(u->peek_off);

	u->peek_off = -1;
	getsockopt(f->copy, SOL_SOCKET, SO_PEEK_OFF, &u->peek_off, &n);
	int queued = 0;

	/* A running target's queue is not read, but may hold the other end of something. */
	if (!f->frozen && !u->listening && (ioctl(f->copy, FIONREAD, &queued) < 0 || queued))
		files_capture_of(c)->in_flight = true;
	return f->frozen && !u->listening ? unix_queue_capture(c, f, u, u->shutdown, e) : 0;
}

/* --- all together --------------------------------------------------------------------------------------- */

static Ferry__UnixSocket *unix_of(const FileDescription *m)
{
	return m->socket ? m->socket->unix_socket : NULL;
}

/* Clients that wait at a listener are connected to something that has no number yet. */
static int settle_listener(struct capture *c, Ferry__Files *all, const struct index_map *by_ino,
			   const FileDescription *m, struct error *e)
{
	const struct unix_info *info;

	if (unix_diag_find(c, unix_of(m)->ino, &info, e) < 0)
		return error_is(e) ? -e->code : 0;
	for (size_t i = 0; i < info->n_waiting; i++) {
		uint32_t at = index_map_find(by_ino, info->waiting[i], 0);

		if (!at && info->waiting[i] && c->tree->frozen)
			return error_say(e, ENOTSUP,
					 "pid %d fd %d: a process outside the tree waits to be accepted at "
					 "unix socket %s (its socket is "
					 "[%u])",
					 m->pid, m->fd,
					 unix_of(m)->name.data[0] ? (char *)unix_of(m)->name.data
								  : "of an abstract name",
					 info->waiting[i]);
		if (at)
			unix_of(all->files[at - 1])->accept_from = unix_of(m)->ino;
	}
	return 0;
}

static int refuse_outside(const FileDescription *m, struct error *e)
{
	const Ferry__UnixSocket *u = unix_of(m);

	return error_say(e, ENOTSUP,
			 "pid %d fd %d: its unix %s socket [%llu] is connected to [%llu] of a process "
			 "outside the tree; %sa dump with --external unix[%llu] leaves it to the caller of "
			 "the restore",
			 m->pid, m->fd, type_name(m->socket->type), (unsigned long long)u->ino,
			 (unsigned long long)u->peer,
			 m->socket->type == SOCK_DGRAM ? "--ext-unix-sk connects it again by name, " : "",
			 (unsigned long long)u->ino);
}

static int settle_external(struct capture *c, const FileDescription *m, struct error *e)
{
	Ferry__UnixSocket *u = unix_of(m);
	const struct process *p = tree_find(c->tree, m->pid);
	bool by_name = c->options && c->options->ext_unix_sk && m->socket->type == SOCK_DGRAM;
	struct sockaddr_un name;
	socklen_t n = 0;

	int r = unix_diag_name(c, u->peer, &name, &n, e);

	if (r < 0)
		return r;
	bool journal = p && unix_journal_is(m->socket->type, &name, n);

	if (n <= offsetof(struct sockaddr_un, sun_path) || (!by_name && !journal))
		return refuse_outside(m, e);
	u->peer_name.len = n - offsetof(struct sockaddr_un, sun_path);
	u->peer_name.data = xmemdup(name.sun_path, u->peer_name.len);
	if (journal && m->socket->type == SOCK_STREAM)
		unix_journal_greeting(process_living(p), p->comm, u);
	return 0;
}

static int settle_one(struct capture *c, const struct index_map *by_ino, const FileDescription *m,
		      struct error *e)
{
	const Ferry__UnixSocket *u = unix_of(m);
	int queued = 0;

	if (u->peer && !index_map_find(by_ino, u->peer, 0))
		return files_capture_of(c)->in_flight ? 0 : settle_external(c, m, e);
	if (!u->connected || u->peer || m->socket->type == SOCK_DGRAM)
		return 0;
	/* The kernel shuts a connection down when its other end is closed; one that waits to be accepted is
	 * open. */
	if (!u->accept_from && u->shutdown != 3 && c->tree->frozen)
		return error_say(e, ENOTSUP,
				 "pid %d fd %d: its unix %s socket [%llu] waits to be accepted by a process "
				 "outside the tree",
				 m->pid, m->fd, type_name(m->socket->type), (unsigned long long)u->ino);
	if (!u->accept_from || !c->tree->frozen)
		return 0;
	cleanup_close int copy = files_copy_of(c, &files_capture_of(c)->ofds[m->id - 1], e);

	if (copy < 0)
		return copy;
	if (ioctl(copy, SIOCOUTQ, &queued) == 0 && queued)
		return error_say(e, ENOTSUP,
				 "pid %d fd %d: data was sent on unix socket [%llu], which is not accepted "
				 "yet: it cannot be read",
				 m->pid, m->fd, (unsigned long long)u->ino);
	return 0;
}

static int unix_settle(struct capture *c, Ferry__Files *all, struct error *e)
{
	struct index_map by_ino = {0};
	int r = 0;

	for (size_t i = 0; i < all->n_files; i++)
		if (unix_of(all->files[i]))
			*index_map_at(&by_ino, unix_of(all->files[i])->ino, 0) = i + 1;
	for (size_t i = 0; r >= 0 && i < all->n_files; i++)
		if (unix_of(all->files[i]) && unix_of(all->files[i])->listening)
			r = settle_listener(c, all, &by_ino, all->files[i], e);
	for (size_t i = 0; r >= 0 && i < all->n_files; i++)
		if (unix_of(all->files[i]))
			r = settle_one(c, &by_ino, all->files[i], e);
	index_map_deinit(&by_ino);
	return r;
}

int unix_rebuild_check(struct rebuild *r, const FileDescription *m, struct error *e);
int unix_rebuild_open(struct rebuild *r, const FileDescription *m, int *ret_fd, struct error *e);
int unix_rebuild_connect(struct rebuild *r, const FileDescription *m, struct error *e);

const struct fd_type fd_unix = {
	.name = "unix socket",
	.kind = FILE_KIND(UNIX),
	.match = unix_match,
	.capture = unix_capture,
	.settle = unix_settle,
	.check = unix_rebuild_check,
	.open = unix_rebuild_open,
	.connect = unix_rebuild_connect,
};
