/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Unix sockets, destination side.  All are made together when the first is wanted: what is bound first, then
 * socket pairs, then connections through their listener, then clients that nobody has accepted.  Each is done
 * by the process that did it at the source, if it is there (unix_maker.c).  Queues come later, in
 * unix_fill.c.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>

#include "base/util.h"
#include "state/sockets/socket.h"
#include "state/sockets/unix.h"

const FileDescription *unix_message_at(struct rebuild *r, size_t i)
{
	return files_rebuild_of(r)->message->files[i];
}

/* NULL: no unix socket. */
const Ferry__UnixSocket *unix_at(struct rebuild *r, size_t i)
{
	const FileDescription *m = unix_message_at(r, i);

	return m->kind == FILE_KIND(UNIX) ? m->socket->unix_socket : NULL;
}

int unix_fd_at(struct rebuild *r, size_t i)
{
	struct error ignore = ERROR_INIT;

	return MAX(files_get(r, i, &ignore), -1);
}

bool unix_is_dgram(struct rebuild *r, size_t i)
{
	return unix_message_at(r, i)->socket->type == SOCK_DGRAM;
}

size_t unix_peer_of(struct rebuild *r, size_t i)
{
	struct unix_rebuild *u = r->sockets;
	uint64_t peer = unix_at(r, i)->peer;
	uint32_t found = peer ? index_map_find(&u->by_ino, peer, 0) : 0;

	return found ? found - 1 : UNIX_NONE;
}

/* The other end of a two-way connection. */
size_t unix_partner_of(struct rebuild *r, size_t i)
{
	size_t j = unix_peer_of(r, i);

	return j != UNIX_NONE && j != i && unix_peer_of(r, j) == i ? j : UNIX_NONE;
}

static bool same_name(const Ferry__UnixSocket *a, const Ferry__UnixSocket *b)
{
	return a->name.len == b->name.len && !memcmp(a->name.data, b->name.data, a->name.len);
}

int unix_fail(const FileDescription *m, const char *what, struct error *e)
{
	return error_set(e, errno, "pid %d fd %d: %s", m->pid, m->fd, what);
}

static int add_stand_in(struct rebuild *r, int fd, size_t of, bool listener)
{
	struct unix_rebuild *u = r->sockets;

	FILES_GROW(u->stand_ins, u->n_stand_ins, u->cap_stand_ins);
	u->stand_ins[u->n_stand_ins++] =
		(struct stand_in){fd_stock_add(&files_rebuild_of(r)->stock, fd), of, listener};
	if (!listener)
		u->stand_in_of[of] = u->n_stand_ins;
	return fd;
}

int unix_stand_in_fd(struct rebuild *r, size_t k, struct error *e)
{
	struct unix_rebuild *u = r->sockets;

	return fd_stock_get(&files_rebuild_of(r)->stock, u->stand_ins[k].place, e);
}

/* --- making --------------------------------------------------------------------------------------------- */

/* Never blocking: the flags are put right when all is done. */
static int make(struct rebuild *r, size_t i, bool named, struct error *e)
{
	const FileDescription *m = unix_message_at(r, i);
	cleanup_close int fd = socket(AF_UNIX, m->socket->type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0)
		return unix_fail(m, "making a unix socket", e);
	int ret = named && unix_at(r, i)->name.len ? unix_bind(r, m, fd, e) : 0;

	if (ret < 0)
		return ret;
	files_put(r, i, TAKE_FD(fd));
	return 0;
}

static int make_listener(struct rebuild *r, size_t i, struct error *e)
{
	int ret = make(r, i, true, e);
	struct unix_maker k = unix_maker_of(r, i);

	return ret < 0 ? ret
		       : unix_maker_listen(r, &k, unix_message_at(r, i), unix_fd_at(r, i),
					   unix_at(r, i)->backlog, e);
}

/* Ends of a socket pair for @i and @j (UNIX_NONE: closed). */
static int adopt_pair(struct rebuild *r, size_t i, size_t j, const int *ends, struct error *e)
{
	files_put(r, i, ends[0]);
	if (j != UNIX_NONE)
		files_put(r, j, ends[1]);
	else
		add_stand_in(r, ends[1], i, false);
	int ret = unix_at(r, i)->name.len ? unix_bind(r, unix_message_at(r, i), ends[0], e) : 0;

	if (ret >= 0 && j != UNIX_NONE && unix_at(r, j)->name.len)
		ret = unix_bind(r, unix_message_at(r, j), ends[1], e);
	return ret;
}

/* Two-way, with a peer that is there or closed. */
static bool is_two_way(struct rebuild *r, size_t i)
{
	const Ferry__UnixSocket *u = unix_at(r, i);

	return unix_partner_of(r, i) != UNIX_NONE ||
	       (u->connected && !u->peer && !u->accept_from && !u->peer_name.len);
}

/* Connected by socketpair(2): one end of a stream that came about through a listener has its name. */
static bool is_pair(struct rebuild *r, size_t i)
{
	size_t j = unix_partner_of(r, i);

	return is_two_way(r, i) && (unix_is_dgram(r, i) || (!unix_at(r, i)->name.len &&
							    (j == UNIX_NONE || !unix_at(r, j)->name.len)));
}

struct pair {
	size_t i, j;
	struct unix_maker maker;
};

static int compare_pairs(const void *a, const void *b)
{
	const struct unix_maker *x = &((const struct pair *)a)->maker, *y = &((const struct pair *)b)->maker;

	if (x->p != y->p)
		return (uintptr_t)x->p < (uintptr_t)y->p ? -1 : 1;
	if (x->uid != y->uid)
		return x->uid < y->uid ? -1 : 1;
	return x->gid < y->gid ? -1 : x->gid > y->gid;
}

static int make_some_pairs(struct rebuild *r, const struct pair *pairs, size_t n, struct error *e)
{
	int types[UNIX_MAKER_PAIRS], ends[UNIX_MAKER_PAIRS][2], ret;

	for (size_t k = 0; k < n; k++)
		types[k] = unix_message_at(r, pairs[k].i)->socket->type | SOCK_CLOEXEC | SOCK_NONBLOCK;
	ret = unix_maker_socketpairs(r, &pairs[0].maker, types, ends, n, e);
	if (ret < 0)
		return ret;
	/* All are taken over, also after an error: they are closed with the rest. */
	for (size_t k = 0; k < n; k++) {
		int one = adopt_pair(r, pairs[k].i, pairs[k].j, ends[k], e);

		ret = ret < 0 ? ret : one;
	}
	return ret;
}

static int make_pairs(struct rebuild *r, struct error *e)
{
	struct unix_rebuild *u = r->sockets;
	cleanup_free struct pair *pairs = xcalloc(u->n, sizeof(*pairs));
	size_t n = 0, m;
	int ret = 0;

	for (size_t i = 0; i < u->n; i++) {
		if (!unix_at(r, i) || files_has(r, i) || !is_pair(r, i))
			continue;
		size_t j = unix_partner_of(r, i);

		if (j == UNIX_NONE || i < j)
			pairs[n++] = (struct pair){i, j, unix_maker_of(r, i)};
	}
	qsort(pairs, n, sizeof(*pairs), compare_pairs);
	for (size_t k = 0; k < n && ret >= 0; k += m) {
		for (m = 1; m < UNIX_MAKER_PAIRS && k + m < n && !compare_pairs(&pairs[k], &pairs[k + m]);)
			m++;
		ret = make_some_pairs(r, pairs + k, m, e);
		if (ret >= 0)
			ret = files_trim(r, e);
	}
	return ret;
}

/* A listener of the tree with the name of @i, or -1. */
static int find_listener(struct rebuild *r, size_t i)
{
	struct unix_rebuild *u = r->sockets;
	const Ferry__UnixSocket *it = unix_at(r, i);

	for (size_t k = 0; it->name.len && k < u->n; k++) {
		const Ferry__UnixSocket *l = unix_at(r, k);

		if (l && l->listening && same_name(l, it) &&
		    unix_message_at(r, k)->socket->type == unix_message_at(r, i)->socket->type)
			return unix_fd_at(r, k);
	}
	return -1;
}

/* One that is closed, but has left its name to those it accepted. */
static int find_stand_in(struct rebuild *r, size_t i, size_t client, struct error *e)
{
	struct unix_rebuild *u = r->sockets;

	for (size_t k = 0; k < u->n_stand_ins; k++)
		if (u->stand_ins[k].listener && same_name(unix_at(r, u->stand_ins[k].of), unix_at(r, i)) &&
		    unix_message_at(r, u->stand_ins[k].of)->socket->type ==
			    unix_message_at(r, i)->socket->type)
			return unix_stand_in_fd(r, k, e);
	int fd = socket(AF_UNIX, unix_message_at(r, i)->socket->type | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return unix_fail(unix_message_at(r, i), "making a unix socket", e);
	add_stand_in(r, fd, i, true);
	int ret = unix_bind(r, unix_message_at(r, i), fd, e);

	struct unix_maker k = client == UNIX_NONE ? (struct unix_maker){0} : unix_maker_of(r, client);

	if (ret >= 0)
		ret = unix_maker_listen(r, &k, unix_message_at(r, i), fd, 1, e);
	return ret < 0 ? ret : fd;
}

int unix_connect(const FileDescription *m, int fd, int bound, struct error *e)
{
	struct sockaddr_un a;
	socklen_t n;
	cleanup_close int file = -1;
	int ret = unix_address_of(bound, &a, &n, &file, e);

	if (ret >= 0 && connect(fd, (struct sockaddr *)&a, n) < 0)
		ret = unix_fail(m, "connecting its unix socket", e);
	return ret;
}

/* @i was accepted, @j is the client (UNIX_NONE: closed). */
static int make_accepted(struct rebuild *r, size_t i, size_t j, int listener, struct error *e)
{
	int client, ret = 0;

	if (j != UNIX_NONE) {
		ret = make(r, j, true, e);
		if (ret < 0)
			return ret;
		client = unix_fd_at(r, j);
	} else {
		client = socket(AF_UNIX, unix_message_at(r, i)->socket->type | SOCK_CLOEXEC | SOCK_NONBLOCK,
				0);
		if (client < 0)
			return unix_fail(unix_message_at(r, i), "making a unix socket", e);
		add_stand_in(r, client, i, false);
	}
	struct unix_maker k = unix_maker_of(r, i);

	ret = unix_maker_connect(r, &k, unix_message_at(r, i), client, listener, e);
	if (ret < 0)
		return ret;
	int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (fd < 0)
		return unix_fail(unix_message_at(r, i), "accepting a unix connection", e);
	files_put(r, i, fd);
	return 0;
}

static int make_connection(struct rebuild *r, size_t i, struct error *e)
{
	size_t j = unix_partner_of(r, i), swap;
	int listener = find_listener(r, i);

	if (listener < 0 && j != UNIX_NONE) {
		int other = find_listener(r, j);

		/* The named end is the one that was accepted. */
		if (other >= 0 || !unix_at(r, i)->name.len) {
			swap = i;
			i = j;
			j = swap;
			listener = other;
		}
	}
	if (!unix_at(r, i)->name.len)
		return error_say(e, EPROTO,
				 "pid %d fd %d: the image has a connection without a name at either end",
				 unix_message_at(r, i)->pid, unix_message_at(r, i)->fd);
	if (listener < 0)
		listener = find_stand_in(r, i, j, e);
	return listener < 0 ? listener : make_accepted(r, i, j, listener, e);
}

static int make_waiting(struct rebuild *r, size_t i, struct error *e)
{
	struct unix_rebuild *u = r->sockets;
	uint32_t listener = index_map_find(&u->by_ino, unix_at(r, i)->accept_from, 0);

	if (!listener)
		return error_say(e, EPROTO, "pid %d fd %d: the image has no listener for its unix socket",
				 unix_message_at(r, i)->pid, unix_message_at(r, i)->fd);
	int ret = make(r, i, true, e);

	return ret < 0 ? ret
		       : unix_connect(unix_message_at(r, i), unix_fd_at(r, i), unix_fd_at(r, listener - 1),
				      e);
}

enum pass {
	PASS_BOUND,
	PASS_CONNECTED,
	PASS_REST,
	PASS_COUNT,
};

static int make_one(struct rebuild *r, size_t i, enum pass pass, struct error *e)
{
	const Ferry__UnixSocket *u = unix_at(r, i);
	bool two_way = is_two_way(r, i);

	if (pass == PASS_BOUND)
		return u->listening                                 ? make_listener(r, i, e)
		       : u->name.len && !two_way && !u->accept_from ? make(r, i, true, e)
								    : 0;
	if (pass == PASS_CONNECTED)
		return two_way ? make_connection(r, i, e) : 0;
	return u->accept_from ? make_waiting(r, i, e) : make(r, i, true, e);
}

static int make_all(struct rebuild *r, struct error *e)
{
	struct unix_rebuild *u = r->sockets;

	for (enum pass pass = PASS_BOUND; pass < PASS_COUNT; pass++) {
		int ret = pass == PASS_CONNECTED ? make_pairs(r, e) : 0;

		for (size_t i = 0; ret >= 0 && i < u->n; i++)
			if (unix_at(r, i) && !files_has(r, i)) {
				ret = make_one(r, i, pass, e);
				if (ret >= 0)
					ret = files_trim(r, e);
			}
		if (ret < 0)
			return ret;
	}
	return 0;
}

static int check_parts(const FileDescription *m, struct error *e)
{
	if (!m->socket || !m->socket->unix_socket)
		return error_say(e, EPROTO, "the image says nothing of socket %llu",
				 (unsigned long long)m->id);
	return 0;
}

int unix_rebuild_open(struct rebuild *r, const FileDescription *m, int *ret_fd, struct error *e)
{
	struct files_rebuild *f = files_rebuild_of(r);
	struct unix_rebuild *u = r->sockets;
	int ret = 0;

	if (!u) {
		for (size_t i = 0; ret >= 0 && i < f->message->n_files; i++)
			if (f->message->files[i]->kind == FILE_KIND(UNIX))
				ret = check_parts(f->message->files[i], e);
		if (ret < 0)
			return ret;
		u = r->sockets = xcalloc(1, sizeof(*u));
		u->n = f->message->n_files;
		u->stand_in_of = xcalloc(u->n, sizeof(*u->stand_in_of));
		for (size_t i = 0; i < u->n; i++)
			if (unix_at(r, i))
				*index_map_at(&u->by_ino, unix_at(r, i)->ino, 0) = i + 1;
		ret = make_all(r, e);
		if (ret < 0)
			return ret;
	}
	size_t i = index_map_find(&f->by_id, m->id, 0) - 1;

	(void)ret_fd; /* in stock */
	ret = files_get(r, i, e);
	return ret < 0 ? ret : socket_apply(ret, m, e);
}

void unix_rebuild_free(struct rebuild *r)
{
	struct unix_rebuild *u = r->sockets;

	if (!u)
		return;
	free(u->stand_ins);
	free(u->stand_in_of);
	index_map_deinit(&u->by_ino);
	free(u);
	r->sockets = NULL;
}

/* --- before -----------------------------------------------------------------------------------------------
 */

int unix_rebuild_check(struct rebuild *r, const FileDescription *m, struct error *e)
{
	int ret = check_parts(m, e);
	const Ferry__UnixSocket *u = ret < 0 ? NULL : m->socket->unix_socket;
	struct stat st;

	(void)r;
	if (ret >= 0 && u->peer_name.len)
		ret = unix_outside_check(m, e);
	if (ret < 0 || !u->name.len || !u->name.data[0] || u->deleted)
		return ret;
	cleanup_free char *path =
		u->name.data[0] == '/' ? xasprintf("%.*s", (int)u->name.len, (char *)u->name.data)
				       : xasprintf("%s/%.*s", u->cwd, (int)u->name.len, (char *)u->name.data);

	if (lstat(path, &st) == 0 &&
	    !(S_ISSOCK(st.st_mode) && st.st_dev == u->name_dev && st.st_ino == u->name_ino))
		return error_say(
			e, EADDRINUSE,
			"pid %d fd %d: %s, the name of its unix socket, is taken here by another file",
			m->pid, m->fd, path);
	return 0;
}
