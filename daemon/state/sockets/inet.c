/* SPDX-License-Identifier: Apache-2.0 */
/*
 * TCP and UDP over IPv4 and IPv6: listening, bound and unconnected sockets, and connected UDP.
 *
 * An established TCP connection is refused, or goes along (--tcp-established, tcp_capture.c), or arrives as a
 * socket that was never connected (--tcp-close): reads say ENOTCONN, polls say hang-up.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "base/util.h"
#include "state/sockets/address.h"
#include "state/sockets/dgram.h"
#include "state/sockets/groups.h"
#include "state/sockets/socket.h"
#include "state/sockets/tcp_source.h"

unsigned inet_port_of(const union inet_address *a)
{
	return ntohs(a->sa.sa_family == AF_INET6 ? a->v6.sin6_port : a->v4.sin_port);
}

const char *inet_text(const union inet_address *a, char *buffer, size_t size)
{
	char ip[INET6_ADDRSTRLEN] = "?";
	bool six = a->sa.sa_family == AF_INET6;

	inet_ntop(a->sa.sa_family, six ? (const void *)&a->v6.sin6_addr : (const void *)&a->v4.sin_addr, ip,
		  sizeof(ip));
	snprintf(buffer, size, six ? "[%s]:%u" : "%s:%u", ip, inet_port_of(a));
	return buffer;
}

static bool is_tcp(int type)
{
	return type == SOCK_STREAM;
}

static bool inet_match(const struct fd_facts *f)
{
	if (f->domain != AF_INET && f->domain != AF_INET6)
		return false;
	return (f->type == SOCK_STREAM && f->protocol == IPPROTO_TCP) ||
	       (f->type == SOCK_DGRAM && f->protocol == IPPROTO_UDP);
}

void inet_put_address(ProtobufCBinaryData *to, const union inet_address *a, socklen_t n)
{
	to->data = xmemdup(a, n);
	to->len = n;
}

static int refuse_connection(const struct fd_facts *f, const struct tcp_info *info,
			     const union inet_address *local, struct error *e)
{
	union inet_address peer = {.sa.sa_family = f->domain};
	socklen_t n = sizeof(peer);
	char here[64], there[64];

	if (getpeername(f->copy, &peer.sa, &n) < 0)
		memset(&peer.v6.sin6_port, 0, sizeof(peer.v6.sin6_port));
	return error_say(
		e, ENOTSUP,
		"pid %d fd %d: %s TCP connection %s -> %s; --tcp-established takes it along, --tcp-close "
		"closes it",
		f->pid, f->fd, info->tcpi_state == 1 ? "established" : "half-open or half-closed",
		inet_text(local, here, sizeof(here)), inet_text(&peer, there, sizeof(there)));
}

static int capture_listener(struct capture *c, const struct fd_facts *f, const struct tcp_info *info,
			    const union inet_address *local, Ferry__InetSocket *m, struct error *e)
{
	char text[64];

	m->listening = true;
	m->backlog = info->tcpi_sacked;
	if (info->tcpi_unacked && f->frozen && !(c->options && c->options->tcp_close))
		return error_say(e, ENOTSUP,
				 "pid %d fd %d: %u TCP connections wait to be accepted at %s and cannot be "
				 "moved yet; --tcp-close "
				 "closes them",
				 f->pid, f->fd, info->tcpi_unacked, inet_text(local, text, sizeof(text)));
	return 0;
}

static int capture_udp(struct capture *c, struct fd_facts *f, const union inet_address *local, socklen_t n,
		       FileDescription *m, struct error *e)
{
	union inet_address peer;
	socklen_t peer_n = sizeof(peer);
	int queued = 0, r = socket_capture(f, m, false, e);

	if (r < 0)
		return r;
	Ferry__InetSocket *s = m->socket->inet = xmalloc(sizeof(*s));

	ferry__inet_socket__init(s);
	if (inet_port_of(local))
		inet_put_address(&s->local, local, n);
	if (getpeername(f->copy, &peer.sa, &peer_n) == 0)
		inet_put_address(&s->peer, &peer, peer_n);
	/* Datagrams may get lost at any time, so here too: they could only be put back with the sender's
	 * address. */
	if (f->frozen && ioctl(f->copy, FIONREAD, &queued) == 0 && queued)
		events_log(c->events, 2, "pid %d fd %d: datagrams that wait in its UDP socket are dropped",
			   f->pid, f->fd);
	return dgram_capture_more(f, m, local, &s->peer, e);
}

/* Does the address come along with its sockets? */
static bool moves(const struct capture *c, const Ferry__InetSocket *s, const union inet_address *local)
{
	static const struct in6_addr any;

	if (!c->options || !c->options->move_address || !s->local.len || !address_can_move(local))
		return false;
	return local->sa.sa_family == AF_INET ? local->v4.sin_addr.s_addr != 0
					      : memcmp(&local->v6.sin6_addr, &any, sizeof(any)) != 0;
}

static int capture_tcp(struct capture *c, struct fd_facts *f, const union inet_address *local, socklen_t n,
		       FileDescription *m, struct error *e)
{
	struct tcp_info info = {0};
	socklen_t size = sizeof(info);

	if (getsockopt(f->copy, IPPROTO_TCP, TCP_INFO, &info, &size) < 0)
		return error_set(e, errno, "pid %d fd %d: reading the state of its TCP socket", f->pid,
				 f->fd);
	bool connected = info.tcpi_state != TCP_STATE_CLOSE && info.tcpi_state != TCP_STATE_LISTEN;
	bool closes = c->options && c->options->tcp_close, goes = c->options && c->options->tcp_established;

	if (connected && !closes && !goes)
		return refuse_connection(f, &info, local, e);
	int r = socket_capture(f, m, connected && closes, e);

	if (r < 0)
		return r;
	Ferry__InetSocket *s = m->socket->inet = xmalloc(sizeof(*s));

	ferry__inet_socket__init(s);
	s->closed_on_move = connected && closes;
	if (connected && !closes) {
		inet_put_address(&s->local, local, n);
		return tcp_capture(c, f, &info, local, m, e);
	}
	/* After a connection the old port still shows, but it is not bound any more. */
	if (info.tcpi_state == TCP_STATE_LISTEN ||
	    (info.tcpi_state == TCP_STATE_CLOSE && inet_port_of(local) && !info.tcpi_segs_in &&
	     !info.tcpi_segs_out))
		inet_put_address(&s->local, local, n);
	return info.tcpi_state == TCP_STATE_LISTEN ? capture_listener(c, f, &info, local, s, e) : 0;
}

static int inet_capture(struct capture *c, struct fd_facts *f, FileDescription *m, struct error *e)
{
	union inet_address local = {0};
	socklen_t n = sizeof(local);

	if (getsockname(f->copy, &local.sa, &n) < 0)
		return error_set(e, errno, "pid %d fd %d: reading the address of its socket", f->pid, f->fd);
	int r = is_tcp(f->type) ? capture_tcp(c, f, &local, n, m, e) : capture_udp(c, f, &local, n, m, e);

	if (r < 0)
		return r;
	m->socket->inet->address_moves = moves(c, m->socket->inet, &local);
	return f->frozen && m->socket->inet->address_moves ? tcp_moves(c, &local, e) : 0;
}

/* --- rebuild -------------------------------------------------------------------------------------------- */

int inet_get_address(const FileDescription *m, const ProtobufCBinaryData *from, union inet_address *ret,
		     struct error *e)
{
	memset(ret, 0, sizeof(*ret));
	if (from->len < sizeof(ret->v4) || from->len > sizeof(*ret))
		return error_say(e, EPROTO, "pid %d fd %d: the image has an address of %zu bytes", m->pid,
				 m->fd, from->len);
	memcpy(ret, from->data, from->len);
	return 0;
}

static void set_freebind(int fd, const FileDescription *m, int on)
{
	if (m->socket->domain == AF_INET6)
		setsockopt(fd, SOL_IPV6, IPV6_FREEBIND, &on, sizeof(on));
	else
		setsockopt(fd, SOL_IP, IP_FREEBIND, &on, sizeof(on));
}

static int bind_local(int fd, const FileDescription *m, struct error *e)
{
	const Ferry__InetSocket *s = m->socket->inet;
	union inet_address local;
	int reuse = 0, one = 1;
	socklen_t n = sizeof(reuse);
	char text[64];
	int r = inet_get_address(m, &s->local, &local, e);

	if (r < 0)
		return r;
	/* Closed connections of the past (TIME_WAIT) must not be in the way; they are not if they had the
	 * option too. */
	getsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &reuse, &n);
	if (is_tcp(m->socket->type))
		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	/* An address that is not here yet. */
	if (s->address_moves)
		set_freebind(fd, m, 1);
	if (bind(fd, &local.sa, s->local.len) < 0)
		return error_set(e, errno, "pid %d fd %d: binding its %s socket to %s%s", m->pid, m->fd,
				 is_tcp(m->socket->type) ? "TCP" : "UDP",
				 inet_text(&local, text, sizeof(text)),
				 errno == EADDRNOTAVAIL
					 ? ", which is not one of this host (ferry migrate --move-address "
					   "brings it along)"
					 : "");
	if (is_tcp(m->socket->type))
		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &reuse, sizeof(reuse));
	if (s->address_moves)
		set_freebind(fd, m,
			     socket_wants(m, SOL_IP, IP_FREEBIND) ||
				     socket_wants(m, SOL_IPV6, IPV6_FREEBIND));
	return 0;
}

/* @trial: as far as shows whether the address can be had here. */
static int make(struct rebuild *r, const FileDescription *m, bool trial, int *ret_fd, struct error *e)
{
	if (!m->socket || !m->socket->inet)
		return error_say(e, EPROTO, "the image says nothing of socket %llu",
				 (unsigned long long)m->id);
	const Ferry__InetSocket *s = m->socket->inet;
	bool closed = s->connection && r->options && r->options->tcp_close;

	if (s->connection && !closed)
		return trial ? tcp_check(r, m, e) : tcp_open(r, m, ret_fd, e);
	cleanup_close int fd = socket_make(m, e);
	union inet_address peer;
	char text[64];

	if (fd < 0)
		return fd;
	int x = socket_apply(fd, m, e);

	if (x >= 0 && !trial)
		x = socket_finish(fd, m, e);
	if (x >= 0 && s->local.len && !closed)
		x = bind_local(fd, m, e);
	if (x >= 0 && trial && m->socket->dgram)
		x = groups_check(m, e);
	if (x < 0 || trial)
		return x;
	if (s->listening && listen(fd, s->backlog) < 0)
		return error_set(e, errno, "pid %d fd %d: listen", m->pid, m->fd);
	if (s->peer.len && !closed) {
		x = inet_get_address(m, &s->peer, &peer, e);
		if (x < 0)
			return x;
		if (connect(fd, &peer.sa, s->peer.len) < 0)
			return error_set(e, errno, "pid %d fd %d: connecting its UDP socket to %s", m->pid,
					 m->fd, inet_text(&peer, text, sizeof(text)));
	}
	if (m->socket->dgram && dgram_rebuild_more(fd, m, e) < 0)
		return -e->code;
	*ret_fd = TAKE_FD(fd);
	return 0;
}

static int inet_check(struct rebuild *r, const FileDescription *m, struct error *e)
{
	int unused;

	return make(r, m, true, &unused, e);
}

static int inet_open(struct rebuild *r, const FileDescription *m, int *ret_fd, struct error *e)
{
	return make(r, m, false, ret_fd, e);
}

const struct fd_type fd_inet = {
	.name = "TCP or UDP socket",
	.kind = FILE_KIND(INET),
	.match = inet_match,
	.capture = inet_capture,
	.check = inet_check,
	.open = inet_open,
};
