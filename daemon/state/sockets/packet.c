/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Packet sockets.  What they are bound to, their fan-out group and options can be asked for; memberships, and
 * whether there is a ring, tells sock_diag.  A ring is memory that kernel and program share, with packets in
 * it: refused. Packets that wait to be read are dropped, as any may be that comes while nobody reads.
 */
#include <errno.h>
#include <linux/if_packet.h>
#include <linux/netlink.h>
#include <linux/packet_diag.h>
#include <linux/rtnetlink.h>
#include <linux/sock_diag.h>
#include <net/if.h>
#include <string.h>
#include <sys/socket.h>

#include "base/util.h"
#include "state/files/files.h"
#include "state/sockets/socket.h"

static bool packet_match(const struct fd_facts *f)
{
	return f->domain == AF_PACKET && (f->type == SOCK_RAW || f->type == SOCK_DGRAM);
}

/* --- source --------------------------------------------------------------------------------------------- */

static int device_name(const struct fd_facts *f, int index, char **ret, struct error *e)
{
	char name[IF_NAMESIZE];

	if (index && !if_indextoname((unsigned)index, name))
		return error_set(e, errno, "pid %d fd %d: network device %d of its packet socket", f->pid,
				 f->fd, index);
	*ret = xstrdup(index ? name : "");
	return 0;
}

static int add_membership(const struct fd_facts *f, const struct packet_diag_mclist *l,
			  Ferry__PacketSocket *p, struct error *e)
{
	Ferry__PacketMembership *m = xmalloc(sizeof(*m));

	ferry__packet_membership__init(m);
	m->type = l->pdmc_type;
	m->count = l->pdmc_count;
	m->address.len = MIN(l->pdmc_alen, sizeof(l->pdmc_addr));
	m->address.data = xmemdup(l->pdmc_addr, m->address.len);
	p->memberships = xrealloc(p->memberships, (p->n_memberships + 1) * sizeof(*p->memberships));
	p->memberships[p->n_memberships++] = m;
	return device_name(f, l->pdmc_index, &m->device, e);
}

static int take_diag(const struct fd_facts *f, const struct nlmsghdr *h, Ferry__PacketSocket *p,
		     struct error *e)
{
	const struct packet_diag_msg *m = NLMSG_DATA(h);
	int left = (int)h->nlmsg_len - (int)NLMSG_LENGTH(sizeof(*m)), r = 0;

	for (const struct rtattr *a = (const struct rtattr *)(m + 1); RTA_OK(a, left) && r >= 0;
	     a = RTA_NEXT(a, left)) {
		const struct packet_diag_mclist *l = RTA_DATA(a);
		size_t n = RTA_PAYLOAD(a) / sizeof(*l);

		if (a->rta_type == PACKET_DIAG_RX_RING || a->rta_type == PACKET_DIAG_TX_RING)
			return error_say(
				e, ENOTSUP,
				"pid %d fd %d: its packet socket has a %s ring, which is not supported",
				f->pid, f->fd, a->rta_type == PACKET_DIAG_RX_RING ? "receive" : "transmit");
		for (size_t i = 0; a->rta_type == PACKET_DIAG_MCLIST && i < n && r >= 0; i++)
			r = add_membership(f, &l[i], p, e);
	}
	return r;
}

/* 1: go on, 0: it was the last message. */
static int take_messages(const struct fd_facts *f, const uint8_t *buffer, size_t n, Ferry__PacketSocket *p,
			 bool *found, struct error *e)
{
	for (const struct nlmsghdr *h = (const struct nlmsghdr *)buffer; NLMSG_OK(h, n);
	     h = NLMSG_NEXT(h, n)) {
		const struct packet_diag_msg *m = NLMSG_DATA(h);

		if (h->nlmsg_type == NLMSG_DONE)
			return 0;
		if (h->nlmsg_type == NLMSG_ERROR)
			return error_set(e, -((const struct nlmsgerr *)NLMSG_DATA(h))->error,
					 "pid %d fd %d: asking sock_diag about packet sockets", f->pid,
					 f->fd);
		if (m->pdiag_ino != f->st.st_ino)
			continue;
		*found = true;
		int r = take_diag(f, h, p, e);

		if (r < 0)
			return r;
	}
	return 1;
}

static int ask_diag(const struct fd_facts *f, Ferry__PacketSocket *p, struct error *e)
{
	struct {
		struct nlmsghdr h;
		struct packet_diag_req r;
	} q = {.h = {.nlmsg_len = sizeof(q),
		     .nlmsg_type = SOCK_DIAG_BY_FAMILY,
		     .nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP},
	       .r = {.sdiag_family = AF_PACKET, .pdiag_show = PACKET_SHOW_MCLIST | PACKET_SHOW_RING_CFG}};
	static _Alignas(struct nlmsghdr) uint8_t buffer[32768];
	cleanup_close int netlink = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);
	bool found = false;
	int r = 1;

	if (netlink < 0 || send(netlink, &q, sizeof(q), 0) < 0)
		return error_set(e, errno, "pid %d fd %d: asking sock_diag about packet sockets", f->pid,
				 f->fd);
	while (r > 0) {
		ssize_t n = recv(netlink, buffer, sizeof(buffer), 0);

		if (n < 0 && errno == EINTR && !job_aborted())
			continue;
		r = n < 0 ? error_set(e, errno, "pid %d fd %d: reading from sock_diag", f->pid, f->fd)
			  : take_messages(f, buffer, n, p, &found, e);
	}
	return r < 0 || found
		       ? r
		       : error_say(e, ENOTSUP,
				   "pid %d fd %d: sock_diag does not know its packet socket (is the module "
				   "af_packet_diag there?)",
				   f->pid, f->fd);
}

static int capture_fanout(const struct fd_facts *f, Ferry__PacketSocket *p, struct error *e)
{
	uint32_t fanout = 0;
	socklen_t n = sizeof(fanout);

	if (getsockopt(f->copy, SOL_PACKET, PACKET_FANOUT, &fanout, &n) < 0 || !fanout)
		return 0;
	unsigned type = fanout >> 16 & 0xff;

	if (type == PACKET_FANOUT_CBPF || type == PACKET_FANOUT_EBPF)
		return error_say(
			e, ENOTSUP,
			"pid %d fd %d: the fan-out group of its packet socket has a BPF program, which the "
			"kernel does not tell",
			f->pid, f->fd);
	p->fanout = fanout;
	return 0;
}

static int packet_capture(struct capture *c, struct fd_facts *f, FileDescription *m, struct error *e)
{
	struct sockaddr_ll a = {0};
	socklen_t n = sizeof(a);
	int r = socket_capture(f, m, false, e);
	char byte;

	if (r < 0)
		return r;
	Ferry__PacketSocket *p = m->socket->packet = xmalloc(sizeof(*p));

	ferry__packet_socket__init(p);
	if (getsockname(f->copy, (struct sockaddr *)&a, &n) < 0)
		return error_set(e, errno, "pid %d fd %d: reading the address of its packet socket", f->pid,
				 f->fd);
	p->protocol = a.sll_protocol;
	p->bound = a.sll_protocol || a.sll_ifindex;
	r = device_name(f, a.sll_ifindex, &p->device, e);
	if (r >= 0)
		r = ask_diag(f, p, e);
	if (r >= 0)
		r = capture_fanout(f, p, e);
	if (r >= 0 && f->frozen && recv(f->copy, &byte, 1, MSG_PEEK | MSG_DONTWAIT) >= 0)
		events_log(c->events, 2, "pid %d fd %d: packets that wait in its packet socket are dropped",
			   f->pid, f->fd);
	return r;
}

/* --- destination ---------------------------------------------------------------------------------------- */

static int device_here(const FileDescription *m, const char *name, int *ret, struct error *e)
{
	*ret = *name ? (int)if_nametoindex(name) : 0;
	return *name && !*ret ? error_set(e, errno, "pid %d fd %d: network device %s of its packet socket",
					  m->pid, m->fd, name)
			      : 0;
}

static int packet_check(struct rebuild *r, const FileDescription *m, struct error *e)
{
	const Ferry__PacketSocket *p = m->socket ? m->socket->packet : NULL;
	int index, ret;

	(void)r;
	if (!p)
		return error_say(e, EPROTO, "the image says nothing of socket %llu",
				 (unsigned long long)m->id);
	ret = device_here(m, p->device, &index, e);
	for (size_t i = 0; i < p->n_memberships && ret >= 0; i++)
		ret = device_here(m, p->memberships[i]->device, &index, e);
	return ret;
}

static int join(int fd, const FileDescription *m, const Ferry__PacketMembership *x, struct error *e)
{
	struct packet_mreq q = {.mr_type = x->type, .mr_alen = x->address.len};
	int ret = x->address.len > sizeof(q.mr_address)
			  ? error_say(e, EPROTO, "pid %d fd %d: the image has a device address of %zu bytes",
				      m->pid, m->fd, x->address.len)
			  : device_here(m, x->device, &q.mr_ifindex, e);

	if (ret < 0)
		return ret;
	memcpy(q.mr_address, x->address.data, x->address.len);
	for (uint32_t i = 0; i < x->count && ret >= 0; i++)
		if (setsockopt(fd, SOL_PACKET, PACKET_ADD_MEMBERSHIP, &q, sizeof(q)) < 0)
			ret = error_set(e, errno, "pid %d fd %d: a membership of its packet socket on %s",
					m->pid, m->fd, x->device);
	return ret;
}

static int packet_open(struct rebuild *r, const FileDescription *m, int *ret_fd, struct error *e)
{
	int ret = packet_check(r, m, e);

	if (ret < 0)
		return ret;
	const Ferry__PacketSocket *p = m->socket->packet;
	struct sockaddr_ll a = {.sll_family = AF_PACKET, .sll_protocol = p->protocol};
	cleanup_close int fd = socket_make(m, e);

	if (fd < 0)
		return fd;
	/* The filter is there before the first packet. */
	ret = socket_apply(fd, m, e);
	if (ret >= 0)
		ret = socket_finish(fd, m, e);
	if (ret >= 0)
		ret = device_here(m, p->device, &a.sll_ifindex, e);
	if (ret >= 0 && p->bound && bind(fd, (struct sockaddr *)&a, sizeof(a)) < 0)
		ret = error_set(e, errno, "pid %d fd %d: binding its packet socket", m->pid, m->fd);
	if (ret >= 0 && p->fanout &&
	    setsockopt(fd, SOL_PACKET, PACKET_FANOUT, &p->fanout, sizeof(p->fanout)) < 0)
		ret = error_set(e, errno, "pid %d fd %d: joining fan-out group %u", m->pid, m->fd,
				p->fanout & 0xffff);
	for (size_t i = 0; i < p->n_memberships && ret >= 0; i++)
		ret = join(fd, m, p->memberships[i], e);
	if (ret >= 0)
		*ret_fd = TAKE_FD(fd);
	return ret;
}

const struct fd_type fd_packet = {
	.name = "packet socket",
	.kind = FILE_KIND(PACKET),
	.match = packet_match,
	.capture = packet_capture,
	.check = packet_check,
	.open = packet_open,
};
