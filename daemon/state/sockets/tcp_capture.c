/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Established TCP connections, source side.
 *
 * Before the first is captured, packets of all of them are held back (hold.c): the peer's go unanswered, and
 * what our side would say (retransmissions, probes) stays here.  Sequence numbers and the send queue can only
 * be read in repair mode, which a connection is in for the time of its own capture.  Should we die in that
 * moment, threads of the target stand in the parasite, where they stay until the supervisor has ended repair
 * mode (freeze/rescue.c): a program must not write to a connection in repair mode.
 */
#include "state/sockets/tcp_source.h"

#include <errno.h>
#include <linux/sockios.h>
#include <string.h>
#include <sys/ioctl.h>

#include "base/util.h"
#include "freeze/rescue.h"

#ifndef SO_PEEK_OFF
#define SO_PEEK_OFF 42
#endif

/* --- capture -------------------------------------------------------------------------------------------- */

static int fail(const struct fd_facts *f, const char *what, struct error *e)
{
	return error_set(e, errno, "pid %d fd %d: %s of its TCP connection", f->pid, f->fd, what);
}

static int read_seq(int fd, int queue, uint32_t *ret)
{
	socklen_t n = sizeof(*ret);

	return setsockopt(fd, IPPROTO_TCP, TCP_REPAIR_QUEUE, &queue, sizeof(queue)) < 0
		       ? -1
		       : getsockopt(fd, IPPROTO_TCP, TCP_QUEUE_SEQ, ret, &n);
}

/* The selected queue. */
static int peek(const struct fd_facts *f, size_t n, ProtobufCBinaryData *ret, const char *name,
		struct error *e)
{
	if (!n)
		return 0;
	ret->data = xmalloc(n);
	ret->len = n;
	ssize_t got = recv(f->copy, ret->data, n, MSG_PEEK | MSG_DONTWAIT);

	if (got < 0)
		return error_set(e, errno, "pid %d fd %d: reading the %s queue of its TCP connection", f->pid,
				 f->fd, name);
	if ((size_t)got != n)
		return error_say(e, ENOTSUP,
				 "pid %d fd %d: %zd of %zu bytes of the %s queue of its TCP connection can "
				 "be read (urgent data?)",
				 f->pid, f->fd, got, n, name);
	return 0;
}

/* The first @n bytes of @all stay there, the others go. */
static void split(ProtobufCBinaryData *all, size_t n, ProtobufCBinaryData *ret)
{
	if (all->len == n)
		return;
	ret->len = all->len - n;
	ret->data = xmemdup(all->data + n, ret->len);
	all->len = n;
}

static int ask_send_queue(const struct fd_facts *f, uint32_t *end, int *queued, int *unsent, struct error *e)
{
	return read_seq(f->copy, TCP_SEND_QUEUE, end) < 0 || ioctl(f->copy, SIOCOUTQ, queued) < 0 ||
			       ioctl(f->copy, SIOCOUTQNSD, unsent) < 0
		       ? fail(f, "reading the send queue", e)
		       : 0;
}

static int read_send_queue(const struct fd_facts *f, Ferry__TcpConnection *t, bool end_acked, struct error *e)
{
	uint32_t end;
	int queued = 0, unsent = 0, last = t->sent_end && !end_acked;
	int r = ask_send_queue(f, &end, &queued, &unsent, e);

	if (r < 0)
		return r;
	/* The end of the direction counts as a byte. */
	t->send_seq = end - (uint32_t)queued - end_acked;
	queued -= last;
	if (unsent > queued)
		unsent = queued;
	else if (unsent)
		unsent -= last;
	r = peek(f, (size_t)queued, &t->sent, "send", e);
	if (r >= 0)
		split(&t->sent, (size_t)(queued - unsent), &t->unsent);
	return r;
}

static int ask_receive_queue(const struct fd_facts *f, uint32_t *end, int *queued, struct error *e)
{
	return read_seq(f->copy, TCP_RECV_QUEUE, end) < 0 || ioctl(f->copy, SIOCINQ, queued) < 0
		       ? fail(f, "reading the receive queue", e)
		       : 0;
}

static int read_receive_queue(const struct fd_facts *f, Ferry__TcpConnection *t, struct error *e)
{
	uint32_t end;
	int queued = 0, r = ask_receive_queue(f, &end, &queued, e);

	if (r < 0)
		return r;
	t->receive_seq = end - (uint32_t)queued;
	return peek(f, (size_t)queued, &t->received, "receive", e);
}

/* What decides whether numbers and contents belong together. */
struct queues {
	uint32_t send_end, receive_end;
	int send, unsent, receive;
};

static int ask_queues(const struct fd_facts *f, struct queues *ret, struct error *e)
{
	memset(ret, 0, sizeof(*ret));
	int r = ask_send_queue(f, &ret->send_end, &ret->send, &ret->unsent, e);

	return r < 0 ? r : ask_receive_queue(f, &ret->receive_end, &ret->receive, e);
}

static void drop(ProtobufCBinaryData *d)
{
	free(d->data);
	*d = (ProtobufCBinaryData){0};
}

/* A packet that was past the rules when they came may still be on its way through another processor: read
 * again until nothing has changed meanwhile. One that comes later does no harm: what it brings is not
 * acknowledged. */
static int read_queues(const struct fd_facts *f, Ferry__TcpConnection *t, bool end_acked, struct error *e)
{
	struct queues before, after;
	struct error why = ERROR_INIT;

	for (int tries = 0; tries < 100; tries++) {
		int r = ask_queues(f, &before, e), s;

		error_clear(&why);
		drop(&t->sent);
		drop(&t->unsent);
		drop(&t->received);
		if (r < 0)
			return r;
		s = read_send_queue(f, t, end_acked, &why);
		if (s >= 0)
			s = read_receive_queue(f, t, &why);
		r = ask_queues(f, &after, e);
		if (r < 0)
			return r;
		if (!memcmp(&before, &after, sizeof(before)))
			return s < 0 ? error_say(e, why.code, "%s", why.text) : 0;
	}
	return error_say(e, EBUSY, "pid %d fd %d: its TCP connection does not come to rest", f->pid, f->fd);
}

static int read_window(const struct fd_facts *f, Ferry__TcpConnection *t, struct error *e)
{
	struct tcp_repair_window w;
	socklen_t n = sizeof(w), m = sizeof(uint32_t);

	if (getsockopt(f->copy, IPPROTO_TCP, TCP_REPAIR_WINDOW, &w, &n) < 0 ||
	    getsockopt(f->copy, IPPROTO_TCP, TCP_TIMESTAMP, &t->timestamp, &m) < 0)
		return fail(f, "reading the window", e);
	t->window.len = sizeof(w);
	t->window.data = xmemdup(&w, sizeof(w));
	t->mss = (uint32_t)tcp_get(f->copy, IPPROTO_TCP, TCP_MAXSEG); /* in repair mode: as negotiated */
	return 0;
}

static int read_connection(struct fd_facts *f, Ferry__TcpConnection *t, bool end_acked, struct error *e)
{
	int reuse = tcp_get(f->copy, SOL_SOCKET, SO_REUSEADDR);
	int peek_offset = tcp_get(f->copy, SOL_SOCKET, SO_PEEK_OFF);
	int on = TCP_REPAIR_ON, off = TCP_REPAIR_OFF_NO_WP;

	t->peek_offset = (uint32_t)(peek_offset + 1);
	rescue_note_repair("");
	if (setsockopt(f->copy, IPPROTO_TCP, TCP_REPAIR, &on, sizeof(on)) < 0) {
		rescue_note_repair(NULL);
		return fail(f, "beginning the repair (CAP_NET_ADMIN)", e);
	}
	if (peek_offset >= 0)
		tcp_set(f->copy, SOL_SOCKET, SO_PEEK_OFF, -1);
	int r = read_queues(f, t, end_acked, e);

	if (r >= 0)
		r = read_window(f, t, e);
	if (peek_offset >= 0)
		tcp_set(f->copy, SOL_SOCKET, SO_PEEK_OFF, peek_offset);
	if (setsockopt(f->copy, IPPROTO_TCP, TCP_REPAIR, &off, sizeof(off)) < 0 && r >= 0)
		r = fail(f, "ending the repair", e);
	tcp_set(f->copy, SOL_SOCKET, SO_REUSEADDR, reuse);
	rescue_note_repair(NULL);
	return r;
}

static int check_protocols(const struct fd_facts *f, const struct tcp_info *info, struct error *e)
{
	char ulp[16] = "";
	socklen_t n = sizeof(ulp);

	if (f->extra)
		return error_say(e, ENOTSUP,
				 "pid %d fd %d: an established TCP connection waits in this unix socket, "
				 "which is not supported",
				 f->pid, f->fd);
	if (!tcp_is_connected(info))
		return error_say(e, ENOTSUP,
				 "pid %d fd %d: its TCP connection is not established yet, and cannot be "
				 "moved; --tcp-close closes it",
				 f->pid, f->fd);
	if (getsockopt(f->copy, IPPROTO_TCP, TCP_ULP, ulp, &n) == 0 && n && ulp[0])
		return error_say(e, ENOTSUP,
				 "pid %d fd %d: its TCP connection uses %.15s in the kernel, "
				 "which is not supported",
				 f->pid, f->fd, ulp);
	return 0;
}

int tcp_capture(struct capture *c, struct fd_facts *f, const struct tcp_info *info,
		const union inet_address *local, FileDescription *m, struct error *e)
{
	Ferry__InetSocket *s = m->socket->inet;
	union inet_address peer = {0};
	socklen_t n = sizeof(peer);
	const char *kept;
	int r = check_protocols(f, info, e);

	if (r >= 0 && getpeername(f->copy, &peer.sa, &n) < 0)
		r = fail(f, "reading the peer's address", e);
	if (r >= 0)
		r = tcp_source_name(c, &kept, e);
	if (r >= 0 && f->frozen)
		r = tcp_hold_one(c, f, local, &peer, e);
	if (r < 0)
		return r;
	inet_put_address(&s->peer, &peer, n);
	/* Also where the kernel tunes them: what the peer may send depends on them. */
	m->socket->sndbuf = (uint32_t)tcp_get(f->copy, SOL_SOCKET, SO_SNDBUF);
	m->socket->rcvbuf = (uint32_t)tcp_get(f->copy, SOL_SOCKET, SO_RCVBUF);
	Ferry__TcpConnection *t = s->connection = xmalloc(sizeof(*t));

	ferry__tcp_connection__init(t);
	t->state = info->tcpi_state;
	t->sent_end = t->state == TCP_STATE_FIN_WAIT1 || t->state == TCP_STATE_FIN_WAIT2 ||
		      t->state == TCP_STATE_LAST_ACK || t->state == TCP_STATE_CLOSING;
	t->got_end = t->state == TCP_STATE_CLOSE_WAIT || t->state == TCP_STATE_LAST_ACK ||
		     t->state == TCP_STATE_CLOSING;
	t->has_scale = info->tcpi_options & TCPI_OPT_WSCALE;
	t->send_scale = info->tcpi_snd_wscale;
	t->receive_scale = info->tcpi_rcv_wscale;
	t->sack = info->tcpi_options & TCPI_OPT_SACK;
	t->timestamps = info->tcpi_options & TCPI_OPT_TIMESTAMPS;
	t->held = xstrdup(kept);
	return f->frozen ? read_connection(f, t, t->state == TCP_STATE_FIN_WAIT2, e) : 0;
}
