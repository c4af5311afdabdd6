/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sockets of IPv4 and IPv6 without a connection: UDP-Lite, raw, and ping (ICMP datagrams); and what UDP
 * (inet.c) has in common with them.
 *
 * getpeername(2) does not show a peer without a port, which raw and ping sockets have: it is read in
 * /proc/PID/net. What half of a socket is shut down shows in poll(2), but for one that only cannot send:
 * sock_diag tells that. Datagrams that wait to be read are dropped, as they may be at any time; a datagram
 * that is only half written (corked) is not ours to drop.
 */
#include <errno.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/sock_diag.h>
#include <linux/sockios.h>
#include <netinet/udp.h>
#include <poll.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "base/util.h"
#include "state/sockets/dgram.h"
#include "state/sockets/groups.h"
#include "state/sockets/socket.h"

#ifndef SO_COOKIE
#define SO_COOKIE 57
#endif
#define SHUT_RECEIVE 1
#define SHUT_SENDING 2

static bool dgram_match(const struct fd_facts *f)
{
	if (f->domain != AF_INET && f->domain != AF_INET6)
		return false;
	if (f->type == SOCK_RAW)
		return true;
	return f->type == SOCK_DGRAM && (f->protocol == IPPROTO_UDPLITE || f->protocol == IPPROTO_ICMP ||
					 f->protocol == IPPROTO_ICMPV6);
}

static const char *kind_of(int type, int protocol)
{
	if (type == SOCK_RAW)
		return "raw";
	return protocol == IPPROTO_UDP ? "UDP" : protocol == IPPROTO_UDPLITE ? "UDP-Lite" : "ping";
}

static bool has_ports(int type, int protocol)
{
	return type == SOCK_DGRAM && (protocol == IPPROTO_UDP || protocol == IPPROTO_UDPLITE);
}

static socklen_t size_of(const union inet_address *a)
{
	return a->sa.sa_family == AF_INET6 ? sizeof(a->v6) : sizeof(a->v4);
}

/* Neither address nor port. */
static bool is_any(const union inet_address *a)
{
	if (inet_port_of(a))
		return false;
	return a->sa.sa_family == AF_INET6 ? IN6_IS_ADDR_UNSPECIFIED(&a->v6.sin6_addr)
					   : a->v4.sin_addr.s_addr == htonl(INADDR_ANY);
}

/* --- source --------------------------------------------------------------------------------------------- */

static bool parse_address(const char *text, int domain, union inet_address *ret)
{
	unsigned port;

	memset(ret, 0, sizeof(*ret));
	ret->sa.sa_family = domain;
	if (domain == AF_INET) {
		uint32_t ip;

		if (sscanf(text, "%8x:%4x", &ip, &port) != 2)
			return false;
		ret->v4.sin_addr.s_addr = ip; /* printed as the number that it is in memory */
		ret->v4.sin_port = htons(port);
		return true;
	}
	uint32_t *ip = ret->v6.sin6_addr.s6_addr32;

	ret->v6.sin6_port = 0;
	if (sscanf(text, "%8x%8x%8x%8x:%4x", &ip[0], &ip[1], &ip[2], &ip[3], &port) != 5)
		return false;
	ret->v6.sin6_port = htons(port);
	return true;
}

/* The peer of a raw or ping socket, as /proc/PID/net/raw, raw6, icmp, icmp6 have it. */
static int peer_of_table(const struct fd_facts *f, union inet_address *ret, bool *ret_has, struct error *e)
{
	char path[64];
	cleanup_free char *text = NULL;

	snprintf(path, sizeof(path), "/proc/%d/net/%s%s", f->living, f->type == SOCK_RAW ? "raw" : "icmp",
		 f->domain == AF_INET6 ? "6" : "");
	ssize_t n = read_file(path, &text);

	*ret_has = false;
	if (n < 0)
		return error_set(e, -n, "pid %d fd %d: reading %s", f->pid, f->fd, path);
	for (const char *line = strchr(text, '\n'); line && line[1]; line = strchr(line + 1, '\n')) {
		char remote[64];
		unsigned long long ino;

		if (sscanf(line + 1, "%*s %*s %63s %*s %*s %*s %*s %*s %*s %llu", remote, &ino) != 2 ||
		    ino != f->st.st_ino)
			continue;
		*ret_has = parse_address(remote, f->domain, ret) && !is_any(ret);
		return 0;
	}
	return 0;
}

static int capture_peer(const struct fd_facts *f, Ferry__DgramSocket *m, struct error *e)
{
	union inet_address peer = {0};
	socklen_t n = sizeof(peer);
	bool has = getpeername(f->copy, &peer.sa, &n) == 0;

	if (!has && !has_ports(f->type, f->protocol)) {
		int r = peer_of_table(f, &peer, &has, e);

		if (r < 0)
			return r;
	}
	if (has)
		inet_put_address(&m->peer, &peer, size_of(&peer));
	return 0;
}

static int ask_diag(int netlink, const struct fd_facts *f, const union inet_address *local,
		    const union inet_address *peer, uint32_t *ret)
{
	struct {
		struct nlmsghdr h;
		struct inet_diag_req_v2 r;
	} q = {.h = {.nlmsg_len = sizeof(q), .nlmsg_type = SOCK_DIAG_BY_FAMILY, .nlmsg_flags = NLM_F_REQUEST},
	       .r = {.sdiag_family = f->domain, .sdiag_protocol = f->protocol, .idiag_states = ~0u}};
	uint64_t cookie = 0;
	socklen_t n = sizeof(cookie);
	_Alignas(struct nlmsghdr) uint8_t buffer[4096];

	if (getsockopt(f->copy, SOL_SOCKET, SO_COOKIE, &cookie, &n) < 0)
		return -errno;
	q.r.id.idiag_cookie[0] = (uint32_t)cookie;
	q.r.id.idiag_cookie[1] = cookie >> 32;
	/* The kernel looks for who would get a datagram: its source is our peer. */
	q.r.id.idiag_dport = htons(inet_port_of(local));
	q.r.id.idiag_sport = htons(inet_port_of(peer));
	memcpy(q.r.id.idiag_dst,
	       f->domain == AF_INET6 ? (void *)&local->v6.sin6_addr : (void *)&local->v4.sin_addr,
	       f->domain == AF_INET6 ? 16 : 4);
	memcpy(q.r.id.idiag_src,
	       f->domain == AF_INET6 ? (void *)&peer->v6.sin6_addr : (void *)&peer->v4.sin_addr,
	       f->domain == AF_INET6 ? 16 : 4);
	if (send(netlink, &q, sizeof(q), 0) < 0)
		return -errno;
	ssize_t got = recv(netlink, buffer, sizeof(buffer), 0);
	const struct nlmsghdr *h = (const struct nlmsghdr *)buffer;

	if (got < 0 || !NLMSG_OK(h, (size_t)got) || h->nlmsg_type != SOCK_DIAG_BY_FAMILY)
		return -ENOENT;
	int left = (int)h->nlmsg_len - (int)NLMSG_LENGTH(sizeof(struct inet_diag_msg));

	for (const struct rtattr *a =
		     (const struct rtattr *)((const struct inet_diag_msg *)NLMSG_DATA(h) + 1);
	     RTA_OK(a, left); a = RTA_NEXT(a, left))
		if (a->rta_type == INET_DIAG_SHUTDOWN)
			*ret = *(const uint8_t *)RTA_DATA(a) & 3;
	return 0;
}

static uint32_t shutdown_of(const struct fd_facts *f, const union inet_address *local,
			    const ProtobufCBinaryData *peer_data)
{
	struct pollfd p = {.fd = f->copy, .events = POLLRDHUP};
	union inet_address peer = {.sa.sa_family = f->domain};
	uint32_t bits = 0;

	if (poll(&p, 1, 0) > 0)
		bits = p.revents & POLLHUP     ? SHUT_RECEIVE | SHUT_SENDING
		       : p.revents & POLLRDHUP ? SHUT_RECEIVE
					       : 0;
	if (bits || !has_ports(f->type, f->protocol) || !inet_port_of(local))
		return bits;
	cleanup_close int netlink = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);

	if (peer_data->len)
		memcpy(&peer, peer_data->data, MIN(peer_data->len, sizeof(peer)));
	if (netlink >= 0)
		(void)ask_diag(netlink, f, local, &peer, &bits);
	return bits;
}

/* Not while it only waits for the device to send it. */
static int refuse_half_written(const struct fd_facts *f, struct error *e)
{
	int unsent = 0, corked = 0;
	socklen_t n = sizeof(corked);

	getsockopt(f->copy, SOL_UDP, UDP_CORK, &corked, &n);
	for (int i = 0; i < 5; i++) {
		if (ioctl(f->copy, SIOCOUTQ, &unsent) < 0 || !unsent)
			return 0;
		if (corked)
			break;
		usleep(1000);
	}
	return error_say(
		e, ENOTSUP,
		"pid %d fd %d: a datagram that is not complete yet (UDP_CORK, MSG_MORE) is in its %s socket, "
		"and cannot be read",
		f->pid, f->fd, kind_of(f->type, f->protocol));
}

int dgram_capture_more(const struct fd_facts *f, FileDescription *m, const union inet_address *local,
		       const ProtobufCBinaryData *peer, struct error *e)
{
	Ferry__DgramSocket *d = m->socket->dgram;

	if (!d) {
		d = m->socket->dgram = xmalloc(sizeof(*d));
		ferry__dgram_socket__init(d);
	}
	int r = groups_capture(f, d, e);

	if (r >= 0 && f->frozen && has_ports(f->type, f->protocol))
		r = refuse_half_written(f, e);
	if (r >= 0)
		d->shutdown = shutdown_of(f, local, peer);
	return r;
}

static int dgram_capture(struct capture *c, struct fd_facts *f, FileDescription *m, struct error *e)
{
	union inet_address local = {0};
	socklen_t n = sizeof(local);
	int queued = 0, r = socket_capture(f, m, false, e);

	if (r < 0)
		return r;
	Ferry__DgramSocket *d = m->socket->dgram = xmalloc(sizeof(*d));

	ferry__dgram_socket__init(d);
	if (getsockname(f->copy, &local.sa, &n) < 0)
		return error_set(e, errno, "pid %d fd %d: reading the address of its socket", f->pid, f->fd);
	/* The port of a raw socket is its protocol. */
	if (f->type == SOCK_RAW && local.sa.sa_family == AF_INET)
		local.v4.sin_port = 0;
	if (f->type == SOCK_RAW && local.sa.sa_family == AF_INET6)
		local.v6.sin6_port = 0;
	if (!is_any(&local))
		inet_put_address(&d->local, &local, size_of(&local));
	r = capture_peer(f, d, e);
	if (r >= 0)
		r = dgram_capture_more(f, m, &local, &d->peer, e);
	if (r >= 0 && f->frozen && ioctl(f->copy, FIONREAD, &queued) == 0 && queued)
		events_log(c->events, 2, "pid %d fd %d: datagrams that wait in its %s socket are dropped",
			   f->pid, f->fd, kind_of(f->type, f->protocol));
	return r;
}

/* --- destination ---------------------------------------------------------------------------------------- */

static const char *kind_name(const FileDescription *m)
{
	return kind_of(m->socket->type, m->socket->protocol);
}

static int bind_local(int fd, const FileDescription *m, struct error *e)
{
	union inet_address local;
	char text[64];
	int r = m->socket->dgram->local.len ? inet_get_address(m, &m->socket->dgram->local, &local, e) : 1;

	if (r != 0)
		return MIN(r, 0);
	if (bind(fd, &local.sa, size_of(&local)) < 0)
		return error_set(e, errno, "pid %d fd %d: binding its %s socket to %s", m->pid, m->fd,
				 kind_name(m), inet_text(&local, text, sizeof(text)));
	return 0;
}

static int connect_peer(int fd, const FileDescription *m, struct error *e)
{
	union inet_address peer;
	char text[64];
	int r = m->socket->dgram->peer.len ? inet_get_address(m, &m->socket->dgram->peer, &peer, e) : 1;

	if (r != 0)
		return MIN(r, 0);
	if (connect(fd, &peer.sa, size_of(&peer)) < 0)
		return error_set(e, errno, "pid %d fd %d: connecting its %s socket to %s", m->pid, m->fd,
				 kind_name(m), inet_text(&peer, text, sizeof(text)));
	return 0;
}

static int make_bound(const FileDescription *m, bool trial, int *ret_fd, struct error *e)
{
	if (!m->socket || !m->socket->dgram)
		return error_say(e, EPROTO, "the image says nothing of socket %llu",
				 (unsigned long long)m->id);
	cleanup_close int fd = socket_make(m, e);

	if (fd < 0)
		return fd;
	int r = socket_apply(fd, m, e);

	if (r >= 0 && !trial)
		r = socket_finish(fd, m, e);
	if (r >= 0)
		r = bind_local(fd, m, e);
	if (r >= 0)
		*ret_fd = TAKE_FD(fd);
	return r;
}

static int dgram_check(struct rebuild *r, const FileDescription *m, struct error *e)
{
	cleanup_close int fd = -1;
	int ret = make_bound(m, true, &fd, e);

	(void)r;
	return ret < 0 ? ret : groups_check(m, e);
}

int dgram_rebuild_more(int fd, const FileDescription *m, struct error *e)
{
	uint32_t bits = m->socket->dgram->shutdown;
	int r = groups_join(fd, m, e);

	/* One that is not connected reports ENOTCONN, and is shut down all the same. */
	if (r >= 0 && bits &&
	    shutdown(fd, bits == 3              ? SHUT_RDWR
			 : bits == SHUT_SENDING ? SHUT_WR
						: SHUT_RD) < 0 &&
	    errno != ENOTCONN)
		r = error_set(e, errno, "pid %d fd %d: shutting its %s socket down", m->pid, m->fd,
			      kind_name(m));
	return r;
}

static int dgram_open(struct rebuild *r, const FileDescription *m, int *ret_fd, struct error *e)
{
	cleanup_close int fd = -1;
	int ret = make_bound(m, false, &fd, e);

	(void)r;
	if (ret >= 0)
		ret = connect_peer(fd, m, e);
	if (ret >= 0)
		ret = dgram_rebuild_more(fd, m, e);
	if (ret >= 0)
		*ret_fd = TAKE_FD(fd);
	return ret;
}

const struct fd_type fd_dgram = {
	.name = "UDP-Lite, raw or ping socket",
	.kind = FILE_KIND(DGRAM),
	.match = dgram_match,
	.capture = dgram_capture,
	.check = dgram_check,
	.open = dgram_open,
};
