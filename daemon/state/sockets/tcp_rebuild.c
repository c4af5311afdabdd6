/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Established TCP connections, destination side.
 *
 * A connection is made in repair mode, in which nothing is said to the peer: numbers first (they can be set
 * only before the connection), then both addresses, what was agreed upon, and the queues.  IP_TRANSPARENT
 * allows an address that this host does not have yet.  Packets for all of them are held back from before the
 * first is made until the program starts (hold.c): a half-built one would answer.
 *
 * The peer's end of its direction cannot be received again.  It is counted as received in the numbers, and
 * the program reads an end because our side does not receive any more (shutdown(2)).  Our own end is said
 * again, which the peer takes for a repetition.
 *
 * What was never sent cannot be put into the queue in repair mode (everything there counts as sent): it is
 * written when the connection is released. Should we die before that, at a moment when the program will run,
 * the connection must not go on without it: IP_TRANSPARENT, left on till then, marks it for the successor
 * (freeze/tcp_repair.c).
 */
#include "state/sockets/tcp.h"

#include <errno.h>
#include <string.h>
#include <uuid/uuid.h>

#include "base/util.h"
#include "state/sockets/address.h"
#include "state/sockets/packets.h"
#include "state/sockets/socket.h"

#ifndef SO_PEEK_OFF
#define SO_PEEK_OFF 42
#endif

#define CHUNK    (32u << 10)
#define MAX_ROOM (256 << 20) /* for a send queue */

enum { OPTION_MSS = 2, OPTION_SCALE = 3, OPTION_SACK = 4, OPTION_TIMESTAMPS = 8 }; /* RFC 9293, 7323, 2018 */

struct waiting {
	int fd;
	const FileDescription *m;
};

struct tcp_destination {
	struct hold *hold;
	bool holding;
	struct waiting *v;
	size_t n, cap;
	struct packets_raw raw;
	bool released;
	ProtobufCBinaryData *packets; /* for tcp_release() */
	size_t n_packets;
};

static int fail(const FileDescription *m, const char *what, struct error *e)
{
	return error_set(e, errno, "pid %d fd %d: %s of its TCP connection", m->pid, m->fd, what);
}

static int destination_of(struct rebuild *r, struct tcp_destination **ret, struct error *e)
{
	char text[37], name[TCP_HOLD_NAME];
	uuid_t u;
	struct hold *hold;

	*ret = r->tcp;
	if (r->tcp)
		return 0;
	uuid_generate(u);
	uuid_unparse_lower(u, text);
	snprintf(name, sizeof(name), "ferry-%s", text);
	int x = hold_new(&hold, name, 0, e);

	if (x < 0)
		return x;
	*ret = r->tcp = xcalloc(1, sizeof(**ret));
	(*ret)->hold = hold;
	(*ret)->raw = (struct packets_raw)PACKETS_RAW_INIT;
	return 0;
}

void tcp_rebuild_free(struct rebuild *r)
{
	struct tcp_destination *d = r->tcp;

	if (!d)
		return;
	for (size_t i = 0; i < d->n; i++)
		close(d->v[i].fd); /* in repair mode: says nothing */
	for (size_t i = 0; i < d->n_packets; i++)
		free(d->packets[i].data);
	free(d->packets);
	packets_raw_close(&d->raw);
	hold_free(d->hold);
	free(d->v);
	free(d);
	r->tcp = NULL;
}

static int addresses(const FileDescription *m, union inet_address *local, union inet_address *peer,
		     struct error *e)
{
	int x = inet_get_address(m, &m->socket->inet->local, local, e);

	return x < 0 ? x : inet_get_address(m, &m->socket->inet->peer, peer, e);
}

/* --- check ---------------------------------------------------------------------------------------------- */

/* A datagram socket can be bound and connected without anybody noticing. */
static int try_address(const FileDescription *m, union inet_address *local, const union inet_address *peer,
		       struct error *e)
{
	cleanup_close int fd = socket(m->socket->domain, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	char here[INET_TEXT], there[INET_TEXT];

	if (fd < 0)
		return error_set(e, errno, "making a socket");
	inet_text(local, here, sizeof(here));
	inet_text(peer, there, sizeof(there));
	if (m->socket->inet->address_moves)
		return address_check(local, peer, e);
	if (local->sa.sa_family == AF_INET6)
		local->v6.sin6_port = 0;
	else
		local->v4.sin_port = 0;
	if (bind(fd, &local->sa, m->socket->inet->local.len) < 0)
		return errno == EADDRNOTAVAIL
			       ? error_say(
					 e, EADDRNOTAVAIL,
					 "pid %d fd %d: TCP connection %s -> %s: its address is not one of "
					 "this host (--move-address brings it along, --tcp-close closes the "
					 "connection)",
					 m->pid, m->fd, here, there)
			       : error_set(e, errno, "pid %d fd %d: binding a socket to the address of %s",
					   m->pid, m->fd, here);
	if (connect(fd, &peer->sa, m->socket->inet->peer.len) < 0)
		return error_set(e, errno, "pid %d fd %d: TCP connection %s -> %s: no way to its peer",
				 m->pid, m->fd, here, there);
	return 0;
}

int tcp_check(struct rebuild *r, const FileDescription *m, struct error *e)
{
	struct tcp_destination *d;
	union inet_address local, peer;
	char there[INET_TEXT];
	int x = addresses(m, &local, &peer, e);

	if (x < 0)
		return x;
	if (!r->options || !r->options->tcp_established)
		return error_say(e, EINVAL,
				 "pid %d fd %d: the image has an established TCP connection to %s: "
				 "--tcp-established takes it up, --tcp-close closes it",
				 m->pid, m->fd, inet_text(&peer, there, sizeof(there)));
	x = destination_of(r, &d, e);
	return x < 0 ? x : try_address(m, &local, &peer, e);
}

/* --- making --------------------------------------------------------------------------------------------- */

/* All of the image, before the first exists. */
static int hold_all(struct rebuild *r, struct tcp_destination *d, struct error *e)
{
	const Ferry__Files *all = files_rebuild_of(r)->message;
	cleanup_free struct hold_tuple *v = xcalloc(all->n_files + 1, sizeof(*v));
	union inet_address local, peer;
	size_t n = 0;
	int x = 0;

	for (size_t i = 0; i < all->n_files && x >= 0 && !d->holding; i++) {
		const FileDescription *m = all->files[i];

		if (m->kind != FILE_KIND(INET) || !m->socket || !m->socket->inet ||
		    !m->socket->inet->connection)
			continue;
		x = addresses(m, &local, &peer, e);
		if (x >= 0)
			tcp_tuple(&local, &peer, &v[n++]);
	}
	if (x >= 0)
		x = hold_add(d->hold, v, n, e);
	d->holding = x >= 0;
	return x;
}

static int put(int fd, int level, int name, int value)
{
	return setsockopt(fd, level, name, &value, sizeof(value));
}

static int select_queue(int fd, int queue)
{
	return put(fd, IPPROTO_TCP, TCP_REPAIR_QUEUE, queue);
}

static int set_seq(int fd, int queue, uint32_t seq)
{
	return select_queue(fd, queue) < 0 ? -1 : put(fd, IPPROTO_TCP, TCP_QUEUE_SEQ, (int)seq);
}

static int transparent(int fd, int domain, bool on)
{
	return put(fd, domain == AF_INET6 ? SOL_IPV6 : SOL_IP,
		   domain == AF_INET6 ? IPV6_TRANSPARENT : IP_TRANSPARENT, on);
}

static bool wants_transparent(const FileDescription *m)
{
	return socket_wants(m, SOL_IP, IP_TRANSPARENT) || socket_wants(m, SOL_IPV6, IPV6_TRANSPARENT);
}

static int unmark(int fd, const FileDescription *m)
{
	return wants_transparent(m) ? 0 : transparent(fd, m->socket->domain, false);
}

static int connect_silently(int fd, const FileDescription *m, struct error *e)
{
	const Ferry__InetSocket *s = m->socket->inet;
	union inet_address local, peer;
	char here[INET_TEXT], there[INET_TEXT];
	int x = addresses(m, &local, &peer, e);

	if (x < 0)
		return x;
	if (put(fd, IPPROTO_TCP, TCP_REPAIR, TCP_REPAIR_ON) < 0)
		return fail(m, "beginning the repair (CAP_NET_ADMIN)", e);
	if (set_seq(fd, TCP_SEND_QUEUE, s->connection->send_seq) < 0 ||
	    set_seq(fd, TCP_RECV_QUEUE, s->connection->receive_seq) < 0 ||
	    transparent(fd, m->socket->domain, true) < 0)
		return fail(m, "setting the numbers", e);
	if (bind(fd, &local.sa, s->local.len) < 0 || connect(fd, &peer.sa, s->peer.len) < 0)
		return error_set(e, errno, "pid %d fd %d: making its TCP connection %s -> %s again", m->pid,
				 m->fd, inet_text(&local, here, sizeof(here)),
				 inet_text(&peer, there, sizeof(there)));
	return 0;
}

static int set_agreed(int fd, const FileDescription *m, struct error *e)
{
	const Ferry__TcpConnection *t = m->socket->inet->connection;
	struct tcp_repair_opt o[4] = {{OPTION_MSS, t->mss}};
	int n = 1;

	if (t->has_scale)
		o[n++] = (struct tcp_repair_opt){OPTION_SCALE, t->send_scale | t->receive_scale << 16};
	if (t->sack)
		o[n++] = (struct tcp_repair_opt){OPTION_SACK, 0};
	if (t->timestamps)
		o[n++] = (struct tcp_repair_opt){OPTION_TIMESTAMPS, 0};
	if (setsockopt(fd, IPPROTO_TCP, TCP_REPAIR_OPTIONS, o, n * sizeof(*o)) < 0 ||
	    put(fd, IPPROTO_TCP, TCP_TIMESTAMP, (int)t->timestamp) < 0)
		return fail(m, "setting the options", e);
	return 0;
}

/* How much fits depends on how it is cut into buffers, which was different where it comes from. */
static int write_all(int fd, const ProtobufCBinaryData *d)
{
	int room = 1 << 20;

	for (size_t done = 0; done < d->len;) {
		ssize_t n = send(fd, d->data + done, MIN(d->len - done, CHUNK), MSG_DONTWAIT | MSG_NOSIGNAL);

		if (n >= 0) {
			done += (size_t)n;
			continue;
		}
		if (errno != EAGAIN || room > MAX_ROOM || put(fd, SOL_SOCKET, SO_SNDBUFFORCE, room) < 0)
			return -1;
		room *= 2;
	}
	return 0;
}

static bool after(uint32_t a, uint32_t b)
{
	return (int32_t)(b - a) < 0;
}

/* It was read after the queues: what came in between is not in them. */
static int set_window(int fd, const FileDescription *m, struct error *e)
{
	const Ferry__TcpConnection *t = m->socket->inet->connection;
	uint32_t next = t->receive_seq + (uint32_t)t->received.len;
	struct tcp_repair_window w;

	if (t->window.len != sizeof(w))
		return error_say(e, EPROTO, "pid %d fd %d: the image has a TCP window of %zu bytes", m->pid,
				 m->fd, t->window.len);
	memcpy(&w, t->window.data, sizeof(w));
	if (after(w.rcv_wup, next))
		w.rcv_wup = next;
	if (after(w.snd_wl1, next + w.rcv_wnd))
		w.snd_wl1 = next;
	return setsockopt(fd, IPPROTO_TCP, TCP_REPAIR_WINDOW, &w, sizeof(w)) < 0
		       ? fail(m, "setting the window", e)
		       : 0;
}

static int fill(int fd, const FileDescription *m, struct error *e)
{
	const Ferry__TcpConnection *t = m->socket->inet->connection;

	if (t->received.len && (select_queue(fd, TCP_RECV_QUEUE) < 0 || write_all(fd, &t->received) < 0))
		return error_set(e, errno,
				 "pid %d fd %d: filling the receive queue of its TCP connection "
				 "(%zu bytes)",
				 m->pid, m->fd, t->received.len);
	if (t->sent.len && (select_queue(fd, TCP_SEND_QUEUE) < 0 || write_all(fd, &t->sent) < 0))
		return error_set(e, errno,
				 "pid %d fd %d: filling the send queue of its TCP connection "
				 "(%zu bytes)",
				 m->pid, m->fd, t->sent.len);
	return select_queue(fd, TCP_NO_QUEUE) < 0 ? fail(m, "leaving the queues", e) : set_window(fd, m, e);
}

int tcp_open(struct rebuild *r, const FileDescription *m, int *ret_fd, struct error *e)
{
	const Ferry__TcpConnection *t = m->socket->inet->connection;
	struct tcp_destination *d;
	int x = destination_of(r, &d, e);

	if (x >= 0 && !d->holding)
		x = hold_all(r, d, e);
	if (x < 0)
		return x;
	cleanup_close int fd = socket_make(m, e);

	if (fd < 0)
		return fd;
	x = socket_apply(fd, m, e); /* before: SO_REUSEADDR would undo what repair mode allows */
	if (x >= 0)
		x = socket_buffers(fd, m, e); /* before: the largest window depends on it */
	if (x >= 0)
		x = connect_silently(fd, m, e);
	if (x >= 0)
		x = set_agreed(fd, m, e);
	if (x >= 0)
		x = fill(fd, m, e);
	if (x >= 0)
		x = socket_finish(fd, m, e);
	if (x >= 0 && t->got_end && shutdown(fd, SHUT_RD) < 0)
		x = fail(m, "ending the receiving side", e);
	if (x >= 0 && !t->unsent.len && !t->sent_end && unmark(fd, m) < 0)
		x = fail(m, "setting an option", e);
	if (x < 0)
		return x;
	int ours = fcntl(fd, F_DUPFD_CLOEXEC, 0);

	if (ours < 0)
		return error_set(e, errno, "copying a descriptor");
	FILES_GROW(d->v, d->n, d->cap);
	d->v[d->n++] = (struct waiting){ours, m};
	*ret_fd = TAKE_FD(fd);
	return 0;
}

/* --- the start ------------------------------------------------------------------------------------------ */

static int release_one(const struct waiting *w, struct error *e)
{
	const Ferry__TcpConnection *t = w->m->socket->inet->connection;

	if (put(w->fd, IPPROTO_TCP, TCP_REPAIR, TCP_REPAIR_OFF) < 0)
		return fail(w->m, "ending the repair", e);
	put(w->fd, SOL_SOCKET, SO_REUSEADDR, socket_wants(w->m, SOL_SOCKET, SO_REUSEADDR));
	if (t->peek_offset)
		put(w->fd, SOL_SOCKET, SO_PEEK_OFF, (int)t->peek_offset - 1);
	if (t->unsent.len && write_all(w->fd, &t->unsent) < 0)
		return error_set(e, errno,
				 "pid %d fd %d: writing %zu bytes again that its TCP connection had "
				 "not sent yet",
				 w->m->pid, w->m->fd, t->unsent.len);
	if (t->sent_end && shutdown(w->fd, SHUT_WR) < 0)
		return fail(w->m, "ending the sending side", e);
	if (unmark(w->fd, w->m) < 0)
		return fail(w->m, "setting an option", e);
	return socket_buffers(w->fd, w->m, e);
}

/* Tables that a dump left here for these connections. */
static int remove_kept(const struct tcp_destination *d, struct error *e)
{
	const char *last = "";
	int first = 0;

	for (size_t i = 0; i < d->n; i++) {
		const char *held = d->v[i].m->socket->inet->connection->held;

		if (!strncmp(held, "ferry-kept-", 11) && strcmp(held, last)) {
			int x = hold_remove_kept(d->hold, held, e);

			first = first < 0 ? first : x;
		}
		last = held;
	}
	return first;
}

static bool brings_address(const FileDescription *m)
{
	return m->kind == FILE_KIND(INET) && m->socket && m->socket->inet && m->socket->inet->address_moves;
}

static int ends_of(const FileDescription *m, union inet_address *local, union inet_address *peer,
		   struct error *e)
{
	if (m->socket->inet->peer.len)
		return addresses(m, local, peer, e);
	int x = inet_get_address(m, &m->socket->inet->local, local, e);

	*peer = *local; /* nobody yet: where it would come from itself */
	return x;
}

static int take_addresses(struct rebuild *r, struct error *e)
{
	const Ferry__Files *all = files_rebuild_of(r)->message;
	char last[INET_TEXT] = "";
	int first = 0;

	for (size_t i = 0; all && i < all->n_files; i++) {
		union inet_address local, peer;
		char text[INET_TEXT];

		if (!brings_address(all->files[i]))
			continue;
		int x = ends_of(all->files[i], &local, &peer, e);

		address_text(&local, text, sizeof(text));
		if (x >= 0 && strcmp(text, last)) /* most have the same */
			x = address_take(&local, &peer, e);
		strcpy(last, text);
		first = first < 0 ? first : x;
	}
	return first;
}

void tcp_each_coming(struct rebuild *r, tcp_address_fn *each, void *ctx)
{
	const Ferry__Files *all = files_rebuild_of(r)->message;
	struct error ignore = ERROR_INIT;
	char here[INET_TEXT], there[INET_TEXT];

	for (size_t i = 0; all && i < all->n_files; i++) {
		union inet_address local, peer;

		if (!brings_address(all->files[i]) || ends_of(all->files[i], &local, &peer, &ignore) < 0)
			continue;
		address_text(&local, here, sizeof(here));
		address_text(&peer, there, sizeof(there));
		each(ctx, here, there);
	}
}

/* Connections and listeners of the image. */
static size_t tuples_of(struct rebuild *r, struct hold_tuple **ret)
{
	const Ferry__Files *all = files_rebuild_of(r)->message;
	struct error ignore = ERROR_INIT;
	size_t n = 0;

	*ret = xcalloc((all ? all->n_files : 0) + 1, sizeof(**ret));
	for (size_t i = 0; all && i < all->n_files; i++) {
		const FileDescription *m = all->files[i];
		const Ferry__InetSocket *s = m->kind == FILE_KIND(INET) && m->socket ? m->socket->inet : NULL;
		union inet_address local, peer = {0};

		if (!s || !(s->connection || s->listening) ||
		    inet_get_address(m, &s->local, &local, &ignore) < 0 ||
		    (s->connection && inet_get_address(m, &s->peer, &peer, &ignore) < 0))
			continue;
		tcp_tuple(&local, &peer, &(*ret)[n++]);
	}
	return n;
}

static void put_now(struct rebuild *r, struct tcp_destination *d, const ProtobufCBinaryData *list, size_t n)
{
	cleanup_free struct hold_tuple *v = NULL;
	size_t n_v = tuples_of(r, &v), done = packets_put(&d->raw, list, n, v, n_v);

	events_log(r->events, 3, "%zu of %zu packets that came meanwhile handed in", done, n);
}

void tcp_put_packets(struct rebuild *r, const ProtobufCBinaryData *list, size_t n)
{
	struct tcp_destination *d = r->tcp;

	if (!d || !n)
		return;
	if (d->released) {
		put_now(r, d, list, n);
		return;
	}
	d->packets = xrealloc(d->packets, (d->n_packets + n) * sizeof(*d->packets));
	for (size_t i = 0; i < n; i++)
		d->packets[d->n_packets++] =
			(ProtobufCBinaryData){list[i].len, xmemdup(list[i].data, list[i].len)};
}

int tcp_release(struct rebuild *r, struct error *e)
{
	struct tcp_destination *d = r->tcp;
	uint64_t t0 = now_ns();
	int x, first = 0;

	/* Packets first: the answers to what is said now would be lost. And before the announcement of the
	 * address: what comes here meanwhile would be, with no copy of it kept. */
	if (d && d->n) {
		first = remove_kept(d, e);
		x = hold_clear(d->hold, e);
		first = first < 0 ? first : x;
	}
	x = take_addresses(r, e);
	first = first < 0 ? first : x;
	if (!d || !d->n)
		return first;
	for (size_t i = 0; i < d->n; i++) {
		x = release_one(&d->v[i], e);
		first = first < 0 ? first : x;
	}
	d->released = true;
	events_log(r->events, 4, "%zu TCP connections released in %llu us", d->n,
		   (unsigned long long)(now_ns() - t0) / 1000);
	if (d->n_packets)
		put_now(r, d, d->packets, d->n_packets);
	return first;
}
