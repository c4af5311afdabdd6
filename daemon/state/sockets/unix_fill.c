/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Unix sockets, destination side, when everything of the tree is open: queues are filled from the right
 * senders; only then come options that would be in the way, one-way connections, shutdowns, and the end of
 * stand-ins for peers that are closed.
 */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "base/util.h"
#include "state/sockets/socket.h"
#include "state/sockets/unix.h"

static int find_sender(struct rebuild *r, const ProtobufCBinaryData *name)
{
	struct unix_rebuild *u = r->sockets;

	for (size_t k = 0; name->len && k < u->n; k++) {
		const Ferry__UnixSocket *s = unix_at(r, k);

		if (s && unix_is_dgram(r, k) && s->name.len == name->len &&
		    !memcmp(s->name.data, name->data, name->len))
			return unix_fd_at(r, k);
	}
	return -1;
}

/* All the room it takes for one message; back to what it was afterwards. */
static int send_one(struct rebuild *r, size_t i, const Ferry__UnixMessage *message, int sender,
		    const struct sockaddr_un *to, socklen_t to_n, struct error *e)
{
	int size = 0, half, much = INT32_MAX / 4;
	socklen_t n = sizeof(size);

	getsockopt(sender, SOL_SOCKET, SO_SNDBUF, &size, &n);
	setsockopt(sender, SOL_SOCKET, SO_SNDBUFFORCE, &much, sizeof(much));
	int ret = unix_queue_send(r, unix_message_at(r, i), message, sender, to, to_n, e);

	half = size / 2;
	setsockopt(sender, SOL_SOCKET, SO_SNDBUFFORCE, &half, sizeof(half));
	return ret;
}

/* A datagram from someone who need not be connected to @i. */
static int send_named(struct rebuild *r, size_t i, const Ferry__UnixMessage *message, struct error *e)
{
	struct sockaddr_un to;
	socklen_t n;
	cleanup_close int file = -1, own = -1;
	int ret = unix_address_of(unix_fd_at(r, i), &to, &n, &file, e);
	int sender = find_sender(r, &message->from);

	if (ret < 0)
		return error_prefix(e, "pid %d fd %d", unix_message_at(r, i)->pid, unix_message_at(r, i)->fd);
	if (sender < 0) {
		own = sender = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
		if (own < 0)
			return unix_fail(unix_message_at(r, i), "making a sender", e);
		if (message->from.len)
			ret = unix_bind_sender(r, unix_message_at(r, i), own, &message->from, e);
	}
	return ret < 0 ? ret : send_one(r, i, message, sender, &to, n, e);
}

static int fill(struct rebuild *r, size_t i, struct error *e)
{
	struct unix_rebuild *u = r->sockets;
	const Ferry__UnixSocket *it = unix_at(r, i);
	size_t partner = unix_partner_of(r, i);
	int sender = partner != UNIX_NONE ? unix_fd_at(r, partner)
		     : u->stand_in_of[i]  ? unix_stand_in_fd(r, u->stand_in_of[i] - 1, e)
					  : -1;

	if (error_is(e))
		return -e->code;
	for (size_t k = 0; k < it->n_queue; k++) {
		int ret = sender >= 0 ? send_one(r, i, it->queue[k], sender, NULL, 0, e)
				      : send_named(r, i, it->queue[k], e);

		if (ret < 0)
			return ret;
	}
	return 0;
}

static int connect_external(struct rebuild *r, size_t i, struct error *e)
{
	const Ferry__UnixSocket *it = unix_at(r, i);
	struct sockaddr_un a = {.sun_family = AF_UNIX};

	if (it->peer_name.len > sizeof(a.sun_path))
		return error_say(e, EPROTO, "pid %d fd %d: the image has a name of %zu bytes",
				 unix_message_at(r, i)->pid, unix_message_at(r, i)->fd, it->peer_name.len);
	memcpy(a.sun_path, it->peer_name.data, it->peer_name.len);
	if (it->greeting.len)
		return unix_journal_connect(r, i, &a, sizeof(sa_family_t) + it->peer_name.len, e);
	return connect(unix_fd_at(r, i), (struct sockaddr *)&a, sizeof(sa_family_t) + it->peer_name.len) < 0
		       ? unix_fail(unix_message_at(r, i),
				   "connecting its unix socket to one outside the tree", e)
		       : 0;
}

/* A datagram socket may talk to one that does not talk to it. */
static int connect_one_way(struct rebuild *r, size_t i, struct error *e)
{
	size_t peer = unix_peer_of(r, i);

	if (unix_at(r, i)->peer_name.len)
		return connect_external(r, i, e);
	if (!unix_is_dgram(r, i) || peer == UNIX_NONE || unix_partner_of(r, i) != UNIX_NONE)
		return 0;
	return unix_connect(unix_message_at(r, i), unix_fd_at(r, i), unix_fd_at(r, peer), e);
}

static int finish(struct rebuild *r, size_t i, struct error *e)
{
	const Ferry__UnixSocket *it = unix_at(r, i);
	int ret = connect_one_way(r, i, e), fd = unix_fd_at(r, i);

	if (ret >= 0)
		ret = socket_finish(fd, unix_message_at(r, i), e);
	if (ret >= 0 && it->peek_off >= 0 &&
	    setsockopt(fd, SOL_SOCKET, SO_PEEK_OFF, &it->peek_off, sizeof(it->peek_off)) < 0)
		ret = unix_fail(unix_message_at(r, i), "setting its SO_PEEK_OFF", e);
	return ret;
}

static void shut_down(struct rebuild *r, size_t i)
{
	static const int how[] = {-1, SHUT_RD, SHUT_WR, SHUT_RDWR};
	const Ferry__UnixSocket *it = unix_at(r, i);

	if (it->shutdown & 3)
		shutdown(unix_fd_at(r, i), how[it->shutdown & 3]);
}

void unix_drop_stand_ins(struct rebuild *r)
{
	struct unix_rebuild *u = r->sockets;

	for (size_t i = 0; i < u->n_stand_ins; i++)
		fd_stock_close(&files_rebuild_of(r)->stock, u->stand_ins[i].place);
	u->n_stand_ins = 0;
}

/* Every description of the tree is open by now: all sockets at once, on the first call. */
int unix_rebuild_connect(struct rebuild *r, const FileDescription *m, struct error *e)
{
	struct unix_rebuild *u = r->sockets;
	int ret = 0;

	(void)m;
	if (u->filled)
		return 0;
	u->filled = true;
	for (size_t i = 0; ret >= 0 && i < u->n; i++)
		if (unix_at(r, i)) {
			ret = fill(r, i, e);
			if (ret >= 0)
				ret = files_trim(r, e);
		}
	for (size_t i = 0; ret >= 0 && i < u->n; i++)
		if (unix_at(r, i)) {
			ret = finish(r, i, e);
			if (ret >= 0)
				ret = files_trim(r, e);
		}
	for (size_t i = 0; ret >= 0 && i < u->n; i++)
		if (unix_at(r, i)) {
			shut_down(r, i);
			ret = files_trim(r, e);
		}
	unix_drop_stand_ins(r);
	return ret;
}
