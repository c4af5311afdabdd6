/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Socket options.  Only what differs from a fresh socket of the same kind is kept: an option the program
 * never touched takes the destination's default.
 */
#include <errno.h>
#include <linux/filter.h>
#include <linux/if_packet.h>
#include <linux/netlink.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <netinet/udp.h>
#include <string.h>
#include <sys/socket.h>

#include "base/util.h"
#include "state/sockets/socket.h"

#ifndef SO_BUF_LOCK
#define SO_BUF_LOCK 72
#endif
#define SO_LOCK_FILTER_ 44
#define MAX_OPTION      64
/* Not in the headers of Debian 12's libc. */
#define SOL_NETLINK         270
#define SOL_RAW             255
#define SOL_ICMPV6_         58
#define ICMP_FILTER_        1
#define IP_ROUTER_ALERT_    5
#define IPV6_UNICAST_IF_    76
#define IPV6_MULTICAST_ALL_ 29
#define UDPLITE_SEND_CSCOV_ 10
#define UDPLITE_RECV_CSCOV_ 11

enum {
	ANY = 0,
	V4 = 1,
	V6 = 2,
	TCP = 4,
	UNIX = 8,
	LATE = 16, /* set last */
	UDP = 32,  /* multicast scopes: an accepted connection has values there that cannot be set */
	KEEP = 64, /* also of a connection that arrives closed */
	PACKET = 128,
	NETLINK = 256,
	DEVICE = 512, /* the value is the number of a device: kept as its name */
};

static const struct option_row {
	int level, name;
	int when; /* ANY: every socket */
} options[] = {
	{SOL_SOCKET, SO_REUSEADDR, V4 | V6},
	{SOL_SOCKET, SO_REUSEPORT, V4 | V6},
	{SOL_SOCKET, SO_KEEPALIVE, V4 | V6 | KEEP},
	{SOL_SOCKET, SO_BROADCAST, UDP},
	{SOL_SOCKET, SO_OOBINLINE, V4 | V6 | KEEP},
	{SOL_SOCKET, SO_PRIORITY, V4 | V6 | PACKET | LATE}, /* IP_TOS sets it, too */
	{SOL_SOCKET, SO_MARK, V4 | V6 | PACKET},
	{SOL_SOCKET, SO_RCVLOWAT, ANY | LATE | KEEP},
	{SOL_SOCKET, SO_LINGER, ANY | LATE | KEEP},
	{SOL_SOCKET, SO_RCVTIMEO, ANY | LATE | KEEP},
	{SOL_SOCKET, SO_SNDTIMEO, ANY | LATE | KEEP},
	{SOL_SOCKET, SO_PASSCRED, UNIX | NETLINK | LATE},
	{SOL_SOCKET, SO_TIMESTAMP, ANY | LATE},
	{SOL_SOCKET, SO_TIMESTAMPNS, ANY | LATE},
	{SOL_SOCKET, SO_BINDTODEVICE, V4 | V6},
	{SOL_SOCKET, SO_NO_CHECK, UDP},
	{SOL_SOCKET, SO_DONTROUTE, V4 | V6},
	{SOL_SOCKET, SO_BUSY_POLL, V4 | V6},
	{SOL_SOCKET, SO_RXQ_OVFL, UDP},
	{SOL_SOCKET, SO_TIMESTAMPING, V4 | V6 | PACKET | UDP | LATE},
	{SOL_SOCKET, SO_SELECT_ERR_QUEUE, V4 | V6 | UDP},
	{SOL_SOCKET, SO_TXTIME, V4 | V6 | PACKET | UDP},
	{SOL_SOCKET, SO_MAX_PACING_RATE, V4 | V6 | UDP},
	{SOL_SOCKET, SO_ZEROCOPY, V4 | V6 | UDP},
	{SOL_IP, IP_TOS, V4},
	{SOL_IP, IP_TTL, V4},
	{SOL_IP, IP_FREEBIND, V4},
	{SOL_IP, IP_TRANSPARENT, V4},
	{SOL_IP, IP_PKTINFO, V4 | UDP},
	{SOL_IP, IP_RECVTTL, V4 | UDP},
	{SOL_IP, IP_RECVTOS, V4 | UDP},
	{SOL_IP, IP_RECVERR, V4 | UDP},
	{SOL_IP, IP_MTU_DISCOVER, V4},
	{SOL_IP, IP_BIND_ADDRESS_NO_PORT, V4},
	{SOL_IP, IP_MULTICAST_TTL, V4 | UDP},
	{SOL_IP, IP_MULTICAST_LOOP, V4 | UDP},
	{SOL_IP, IP_MULTICAST_ALL, V4 | UDP},
	{SOL_IP, IP_MULTICAST_IF, V4 | UDP},
	{SOL_IP, IP_OPTIONS, V4 | UDP},
	{SOL_IP, IP_HDRINCL, V4 | UDP},
	{SOL_IP, IP_NODEFRAG, V4 | UDP},
	{SOL_IP, IP_ROUTER_ALERT_, V4 | UDP},
	{SOL_IP, IP_RECVOPTS, V4 | UDP},
	{SOL_IP, IP_RETOPTS, V4 | UDP},
	{SOL_IP, IP_PASSSEC, V4 | UDP},
	{SOL_IP, IP_MINTTL, V4 | UDP},
	{SOL_IP, IP_ORIGDSTADDR, V4 | UDP},
	{SOL_IP, IP_CHECKSUM, V4 | UDP},
	{SOL_IP, IP_RECVFRAGSIZE, V4 | UDP},
	{SOL_RAW, ICMP_FILTER_, V4 | UDP},
	{SOL_UDP, UDP_NO_CHECK6_TX, V6 | UDP},
	{SOL_UDP, UDP_NO_CHECK6_RX, V6 | UDP},
	{SOL_UDP, UDP_SEGMENT, UDP},
	{SOL_UDP, UDP_GRO, UDP},
	{SOL_UDP, UDP_CORK, UDP | LATE},
	{SOL_UDP, UDPLITE_SEND_CSCOV_, UDP},
	{SOL_UDP, UDPLITE_RECV_CSCOV_, UDP},
	{SOL_PACKET, PACKET_AUXDATA, PACKET},
	{SOL_PACKET, PACKET_ORIGDEV, PACKET},
	{SOL_PACKET, PACKET_VERSION, PACKET},
	{SOL_PACKET, PACKET_RESERVE, PACKET},
	{SOL_PACKET, PACKET_LOSS, PACKET},
	{SOL_PACKET, PACKET_VNET_HDR, PACKET},
	{SOL_PACKET, PACKET_TIMESTAMP, PACKET},
	{SOL_PACKET, PACKET_TX_HAS_OFF, PACKET},
	{SOL_PACKET, PACKET_QDISC_BYPASS, PACKET},
	{SOL_PACKET, PACKET_IGNORE_OUTGOING, PACKET},
	{SOL_NETLINK, NETLINK_PKTINFO, NETLINK},
	{SOL_NETLINK, NETLINK_BROADCAST_ERROR, NETLINK},
	{SOL_NETLINK, NETLINK_NO_ENOBUFS, NETLINK},
	{SOL_NETLINK, NETLINK_LISTEN_ALL_NSID, NETLINK},
	{SOL_NETLINK, NETLINK_CAP_ACK, NETLINK},
	{SOL_NETLINK, NETLINK_EXT_ACK, NETLINK},
	{SOL_NETLINK, NETLINK_GET_STRICT_CHK, NETLINK},
	{SOL_IPV6, IPV6_MULTICAST_IF, V6 | UDP | DEVICE},
	{SOL_IPV6, IPV6_UNICAST_IF_, V6 | UDP | DEVICE},
	{SOL_IPV6, IPV6_CHECKSUM, V6 | UDP},
	{SOL_IPV6, IPV6_HDRINCL, V6 | UDP},
	{SOL_IPV6, IPV6_RECVHOPOPTS, V6 | UDP},
	{SOL_IPV6, IPV6_RECVRTHDR, V6 | UDP},
	{SOL_IPV6, IPV6_RECVDSTOPTS, V6 | UDP},
	{SOL_IPV6, IPV6_RECVPATHMTU, V6 | UDP},
	{SOL_IPV6, IPV6_DONTFRAG, V6 | UDP},
	{SOL_IPV6, IPV6_AUTOFLOWLABEL, V6 | UDP},
	{SOL_IPV6, IPV6_ADDR_PREFERENCES, V6 | UDP},
	{SOL_IPV6, IPV6_MINHOPCOUNT, V6 | UDP},
	{SOL_IPV6, IPV6_ORIGDSTADDR, V6 | UDP},
	{SOL_IPV6, IPV6_RECVFRAGSIZE, V6 | UDP},
	{SOL_IPV6, IPV6_MULTICAST_ALL_, V6 | UDP},
	{SOL_ICMPV6_, ICMP_FILTER_, V6 | UDP},
	{SOL_IPV6, IPV6_V6ONLY, V6},
	{SOL_IPV6, IPV6_UNICAST_HOPS, V6},
	{SOL_IPV6, IPV6_MULTICAST_HOPS, V6 | UDP},
	{SOL_IPV6, IPV6_MULTICAST_LOOP, V6 | UDP},
	{SOL_IPV6, IPV6_RECVPKTINFO, V6 | UDP},
	{SOL_IPV6, IPV6_RECVHOPLIMIT, V6 | UDP},
	{SOL_IPV6, IPV6_RECVTCLASS, V6 | UDP},
	{SOL_IPV6, IPV6_TCLASS, V6},
	{SOL_IPV6, IPV6_RECVERR, V6 | UDP},
	{SOL_IPV6, IPV6_MTU_DISCOVER, V6},
	{SOL_IPV6, IPV6_FREEBIND, V6},
	{SOL_IPV6, IPV6_TRANSPARENT, V6},
	{SOL_TCP, TCP_NODELAY, TCP | KEEP},
	{SOL_TCP, TCP_CORK, TCP},
	{SOL_TCP, TCP_KEEPIDLE, TCP | KEEP},
	{SOL_TCP, TCP_KEEPINTVL, TCP | KEEP},
	{SOL_TCP, TCP_KEEPCNT, TCP | KEEP},
	{SOL_TCP, TCP_SYNCNT, TCP},
	{SOL_TCP, TCP_LINGER2, TCP},
	{SOL_TCP, TCP_DEFER_ACCEPT, TCP},
	{SOL_TCP, TCP_USER_TIMEOUT, TCP | KEEP},
	{SOL_TCP, TCP_NOTSENT_LOWAT, TCP},
	{SOL_TCP, TCP_SAVE_SYN, TCP},
	{SOL_TCP, TCP_CONGESTION, TCP},
};

/* Families and protocols of a row: one of each that is named must fit. */
static bool applies(const struct option_row *o, int domain, int type)
{
	int family = domain == AF_INET     ? V4
		     : domain == AF_INET6  ? V6
		     : domain == AF_UNIX   ? UNIX
		     : domain == AF_PACKET ? PACKET
					   : NETLINK;
	int protocol = domain == AF_UNIX ? 0 : type == SOCK_STREAM ? TCP : UDP;
	int families = o->when & (V4 | V6 | UNIX | PACKET | NETLINK), protocols = o->when & (TCP | UDP);

	return (!families || families & family) && (!protocols || protocols & protocol);
}

struct values {
	struct {
		socklen_t n; /* 0: not readable */
		uint8_t bytes[MAX_OPTION];
	} v[ARRAY_SIZE(options)];
	int buffers[2];
};

static void read_values(int fd, int domain, int type, bool closed, struct values *ret)
{
	socklen_t n = sizeof(int);

	for (size_t i = 0; i < ARRAY_SIZE(options); i++) {
		ret->v[i].n = MAX_OPTION;
		if (!applies(&options[i], domain, type) || (closed && !(options[i].when & KEEP)) ||
		    getsockopt(fd, options[i].level, options[i].name, ret->v[i].bytes, &ret->v[i].n) < 0)
			ret->v[i].n = 0;
	}
	getsockopt(fd, SOL_SOCKET, SO_SNDBUF, &ret->buffers[0], &n);
	getsockopt(fd, SOL_SOCKET, SO_RCVBUF, &ret->buffers[1], &n);
}

/* Values of a socket that nobody touched; read once per kind. */
static const struct values *defaults(int domain, int type, int protocol)
{
	static struct {
		int domain, type, protocol;
		struct values *values;
	} known[64];

	for (size_t i = 0; i < ARRAY_SIZE(known); i++) {
		if (known[i].values && known[i].domain == domain && known[i].type == type &&
		    known[i].protocol == protocol)
			return known[i].values;
		if (known[i].values)
			continue;
		cleanup_close int fd = socket(domain, type | SOCK_CLOEXEC, protocol);

		if (fd < 0)
			return NULL;
		known[i].domain = domain;
		known[i].type = type;
		known[i].protocol = protocol;
		known[i].values = xcalloc(1, sizeof(*known[i].values));
		read_values(fd, domain, type, false, known[i].values);
		return known[i].values;
	}
	return NULL;
}

static void add_option(Ferry__SocketFile *s, const struct option_row *o, const void *value, size_t n)
{
	Ferry__SocketOption *m = xmalloc(sizeof(*m));

	ferry__socket_option__init(m);
	m->level = o->level;
	m->name = o->name;
	if (o->when & DEVICE) {
		char name[IF_NAMESIZE] = "";

		if_indextoname(*(const unsigned *)value, name);
		m->value.data = (uint8_t *)xstrdup(name);
		m->value.len = strlen(name) + 1;
	} else {
		m->value.data = xmemdup(value, n);
		m->value.len = n;
	}
	s->options = xrealloc(s->options, (s->n_options + 1) * sizeof(*s->options));
	s->options[s->n_options++] = m;
}

static int take_filter(const struct fd_facts *f, Ferry__SocketFile *s, struct error *e)
{
	socklen_t count = 0, n = sizeof(int);
	int locked = 0;

	/* The length of this option is in instructions. */
	if (getsockopt(f->copy, SOL_SOCKET, SO_GET_FILTER, NULL, &count) < 0)
		return errno == EACCES ? error_say(e, ENOTSUP,
						   "pid %d fd %d: its socket has an eBPF filter, which the "
						   "kernel does not tell",
						   f->pid, f->fd)
				       : error_set(e, errno, "pid %d fd %d: reading the filter of its socket",
						   f->pid, f->fd);
	if (!count)
		return 0;
	s->filter.len = count * sizeof(struct sock_filter);
	s->filter.data = xcalloc(count, sizeof(struct sock_filter));
	if (getsockopt(f->copy, SOL_SOCKET, SO_GET_FILTER, s->filter.data, &count) < 0)
		return error_set(e, errno, "pid %d fd %d: reading the filter of its socket", f->pid, f->fd);
	s->filter_locked = getsockopt(f->copy, SOL_SOCKET, SO_LOCK_FILTER_, &locked, &n) == 0 && locked;
	return 0;
}

static bool is_changed(const struct values *now, const struct values *fresh, size_t i)
{
	return now->v[i].n &&
	       (now->v[i].n != fresh->v[i].n || memcmp(now->v[i].bytes, fresh->v[i].bytes, now->v[i].n));
}

/* Setting the one will change the other. */
static bool is_priority_beside_tos(const struct values *now, const struct values *fresh, size_t i)
{
	if (options[i].level != SOL_SOCKET || options[i].name != SO_PRIORITY)
		return false;
	for (size_t k = 0; k < ARRAY_SIZE(options); k++)
		if (options[k].level == SOL_IP && options[k].name == IP_TOS && is_changed(now, fresh, k))
			return true;
	return false;
}

int socket_capture(struct fd_facts *f, FileDescription *m, bool closed, struct error *e)
{
	Ferry__SocketFile *s = m->socket = xmalloc(sizeof(*s));
	struct values now;
	int domain = f->domain, type = f->type, protocol = domain == AF_UNIX ? 0 : f->protocol;
	const struct values *fresh = defaults(domain, type, protocol);
	int lock = 0;
	socklen_t n = sizeof(lock);

	ferry__socket_file__init(s);
	s->domain = domain;
	s->type = type;
	s->protocol = protocol;
	if (!fresh)
		return error_set(e, errno, "pid %d fd %d: making a socket of family %d, type %d, protocol %d",
				 f->pid, f->fd, domain, type, protocol);
	read_values(f->copy, domain, type, closed, &now);
	for (size_t i = 0; i < ARRAY_SIZE(options); i++)
		if (now.v[i].n && (is_changed(&now, fresh, i) || is_priority_beside_tos(&now, fresh, i)))
			add_option(s, &options[i], now.v[i].bytes, now.v[i].n);
	/* Sizes that the kernel tunes by itself are no setting, unless they were locked by one. */
	bool has_lock = getsockopt(f->copy, SOL_SOCKET, SO_BUF_LOCK, &lock, &n) == 0;

	s->buf_lock = lock;
	if (has_lock ? lock & 1 : now.buffers[0] != fresh->buffers[0])
		s->sndbuf = now.buffers[0];
	if (has_lock ? lock & 2 : now.buffers[1] != fresh->buffers[1])
		s->rcvbuf = now.buffers[1];
	return closed ? 0 : take_filter(f, s, e);
}

int socket_make(const FileDescription *m, struct error *e)
{
	int fd = socket(m->socket->domain, m->socket->type | SOCK_CLOEXEC, m->socket->protocol);

	return fd < 0 ? error_set(e, errno,
				  "pid %d fd %d: making a socket of family %d, type %d, protocol %d", m->pid,
				  m->fd, m->socket->domain, m->socket->type, m->socket->protocol)
		      : fd;
}

static int set_option(int fd, const struct option_row *row, const ProtobufCBinaryData *value)
{
	if (!(row->when & DEVICE))
		return setsockopt(fd, row->level, row->name, value->data, value->len);
	cleanup_free char *name = xasprintf("%.*s", (int)value->len, (const char *)value->data);
	int index = (int)if_nametoindex(name);

	return index ? setsockopt(fd, row->level, row->name, &index, sizeof(index)) : -1;
}

static int apply(int fd, const FileDescription *m, bool late, struct error *e)
{
	for (size_t i = 0; i < m->socket->n_options; i++) {
		const Ferry__SocketOption *o = m->socket->options[i];
		const struct option_row *row = NULL;

		for (size_t k = 0; k < ARRAY_SIZE(options); k++)
			if (options[k].level == o->level && options[k].name == o->name)
				row = &options[k];
		if (!row)
			return error_say(e, EPROTO,
					 "pid %d fd %d: the image has an unknown socket option %d, %d",
					 m->pid, m->fd, o->level, o->name);
		if (!!(row->when & LATE) == late && set_option(fd, row, &o->value) < 0)
			return error_set(e, errno, "pid %d fd %d: setting socket option %d of level %d",
					 m->pid, m->fd, o->name, o->level);
	}
	return 0;
}

int socket_apply(int fd, const FileDescription *m, struct error *e)
{
	return apply(fd, m, false, e);
}

/* What is read is twice what was set. Beyond the system's maximum only with privilege. */
static int set_buffer(int fd, int name, int force_name, uint32_t size)
{
	int half = size / 2;

	return setsockopt(fd, SOL_SOCKET, force_name, &half, sizeof(half)) == 0 ||
			       setsockopt(fd, SOL_SOCKET, name, &half, sizeof(half)) == 0
		       ? 0
		       : -errno;
}

int socket_buffers(int fd, const FileDescription *m, struct error *e)
{
	const Ferry__SocketFile *s = m->socket;
	int lock = (int)s->buf_lock;

	if ((s->sndbuf && set_buffer(fd, SO_SNDBUF, SO_SNDBUFFORCE, s->sndbuf) < 0) ||
	    (s->rcvbuf && set_buffer(fd, SO_RCVBUF, SO_RCVBUFFORCE, s->rcvbuf) < 0))
		return error_set(e, errno, "pid %d fd %d: setting the buffer sizes of its socket", m->pid,
				 m->fd);
	setsockopt(fd, SOL_SOCKET, SO_BUF_LOCK, &lock, sizeof(lock)); /* since Linux 5.14 */
	return 0;
}

int socket_finish(int fd, const FileDescription *m, struct error *e)
{
	const Ferry__SocketFile *s = m->socket;
	int one = 1, r = apply(fd, m, true, e);

	if (r >= 0)
		r = socket_buffers(fd, m, e);
	if (r < 0)
		return r;
	if (s->filter.len) {
		struct sock_fprog program = {.len = s->filter.len / sizeof(struct sock_filter),
					     .filter = (struct sock_filter *)s->filter.data};

		if (setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof(program)) < 0 ||
		    (s->filter_locked && setsockopt(fd, SOL_SOCKET, SO_LOCK_FILTER_, &one, sizeof(one)) < 0))
			return error_set(e, errno, "pid %d fd %d: setting the filter of its socket", m->pid,
					 m->fd);
	}
	return 0;
}

bool socket_wants(const FileDescription *m, int level, int name)
{
	for (size_t i = 0; i < m->socket->n_options; i++)
		if (m->socket->options[i]->level == level && m->socket->options[i]->name == name)
			return m->socket->options[i]->value.len && m->socket->options[i]->value.data[0];
	return false;
}
