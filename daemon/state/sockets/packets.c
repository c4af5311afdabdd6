/* SPDX-License-Identifier: Apache-2.0 */
/*
 * At the source the rules that drop a packet send a copy of it to a group of nfnetlink_log, which is a socket
 * of ours.  Where the connection goes on it is sent by a raw socket, to an address that is one of this host:
 * the kernel delivers it through the loopback interface as if it had come from the peer.
 *
 * Checksums: a packet may come from another container of the same machine, or may have been put together by
 * the receiving side of the network card, and has only the part of the checksum then that a card would
 * complete.  That part is known, so such a packet is told from a damaged one, which is left out.
 *
 * What the other side sends is put into the network here, so it must belong to a connection or a listener
 * that was rebuilt.
 */
#include "state/sockets/packets.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_log.h>
#include <netinet/ip.h>
#include <netinet/ip6.h>
#include <netinet/tcp.h>
#include <netlink/attr.h>
#include <netlink/msg.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>

#include "base/util.h"

#define BUFFER                                                                                       \
	(128u << 10) /* one message of the kernel has one packet of up to 64 KiB, or some small ones \
		      */
#define MAX_BYTES (16u << 20) /* in one go */
#define ROOM      (16 << 20)  /* of our socket */
#define TRIES     20

struct packets {
	int sock;
};

/* --- source --------------------------------------------------------------------------------------------- */

static int configure(int sock, uint16_t group)
{
	struct nfulnl_msg_config_cmd bind = {.command = NFULNL_CFG_CMD_BIND};
	struct nfulnl_msg_config_mode mode = {.copy_range = htonl(0xffff - NLA_HDRLEN),
					      .copy_mode = NFULNL_COPY_PACKET};
	struct nl_msg *m = nlmsg_alloc();
	_Alignas(struct nlmsghdr) char answer[1024];

	if (!m || !nlmsg_put(m, 0, 1, NFNL_SUBSYS_ULOG << 8 | NFULNL_MSG_CONFIG, sizeof(struct nfgenmsg),
			     NLM_F_REQUEST | NLM_F_ACK))
		abort(); /* no memory */
	*(struct nfgenmsg *)nlmsg_data(nlmsg_hdr(m)) =
		(struct nfgenmsg){AF_UNSPEC, NFNETLINK_V0, htons(group)};
	nla_put(m, NFULA_CFG_CMD, sizeof(bind), &bind);
	nla_put(m, NFULA_CFG_MODE, sizeof(mode), &mode);
	nla_put_u32(m, NFULA_CFG_QTHRESH, htonl(1)); /* each at once */
	int r = send(sock, nlmsg_hdr(m), nlmsg_hdr(m)->nlmsg_len, 0) < 0 ? -errno : 0;

	nlmsg_free(m);
	if (r < 0)
		return r;
	if (recv(sock, answer, sizeof(answer), 0) < (ssize_t)NLMSG_LENGTH(sizeof(struct nlmsgerr)))
		return -EPROTO;
	return ((struct nlmsgerr *)nlmsg_data((struct nlmsghdr *)answer))->error;
}

int packets_open(struct packets **ret, uint16_t *ret_group, struct error *e)
{
	int room = ROOM, one = 1, r = -EBUSY;
	uint16_t group = 0;

	for (int i = 0; i < TRIES && r == -EBUSY; i++) {
		cleanup_close int sock = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_NETFILTER);

		if (sock < 0)
			return error_set(e, errno, "opening a netlink socket");
		if (getrandom(&group, sizeof(group), 0) != sizeof(group) || !group)
			continue;
		setsockopt(sock, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof(room));
		setsockopt(sock, SOL_NETLINK, NETLINK_NO_ENOBUFS, &one, sizeof(one));
		r = configure(sock, group);
		if (r < 0)
			continue;
		*ret = xcalloc(1, sizeof(**ret));
		(*ret)->sock = TAKE_FD(sock);
		*ret_group = group;
	}
	return r < 0 ? error_set(e, -r, "held packets cannot be kept (nfnetlink_log)") : 0;
}

void packets_free(struct packets *p)
{
	if (!p)
		return;
	close(p->sock);
	free(p);
}

void packets_take(struct packets *p, ProtobufCBinaryData **list, size_t *n)
{
	cleanup_free char *buffer = xmalloc(BUFFER);
	size_t bytes = 0;
	ssize_t got;

	while (p && bytes < MAX_BYTES && (got = recv(p->sock, buffer, BUFFER, MSG_DONTWAIT)) > 0) {
		int left = (int)got;

		for (struct nlmsghdr *h = (struct nlmsghdr *)buffer; nlmsg_ok(h, left);
		     h = nlmsg_next(h, &left)) {
			if (h->nlmsg_type != (NFNL_SUBSYS_ULOG << 8 | NFULNL_MSG_PACKET))
				continue;
			const struct nlattr *a = nlmsg_find_attr(h, sizeof(struct nfgenmsg), NFULA_PAYLOAD);

			if (!a)
				continue;
			*list = xrealloc(*list, (*n + 1) * sizeof(**list));
			(*list)[(*n)++] = (ProtobufCBinaryData){(size_t)nla_len(a),
								xmemdup(nla_data(a), (size_t)nla_len(a))};
			bytes += (size_t)nla_len(a);
		}
	}
}

/* --- destination ---------------------------------------------------------------------------------------- */

struct packet {
	struct hold_tuple tuple; /* local: whom it is for */
	uint8_t *tcp;
	size_t n;  /* from there on */
	bool asks; /* for a new connection */
};

static bool parse4(uint8_t *data, size_t n, struct packet *ret)
{
	const struct ip *ip = (const struct ip *)data;
	size_t head = n < sizeof(*ip) ? 0 : ip->ip_hl * 4u, total = n < sizeof(*ip) ? 0 : ntohs(ip->ip_len);

	if (head < sizeof(*ip) || total < head || total > n || ip->ip_p != IPPROTO_TCP ||
	    ip->ip_off & htons(IP_MF | IP_OFFMASK))
		return false;
	memcpy(&ret->tuple.local, &ip->ip_dst, 4);
	memcpy(&ret->tuple.peer, &ip->ip_src, 4);
	ret->tcp = data + head;
	ret->n = total - head;
	return true;
}

static bool parse6(uint8_t *data, size_t n, struct packet *ret)
{
	const struct ip6_hdr *ip = (const struct ip6_hdr *)data;

	if (n < sizeof(*ip) || ip->ip6_nxt != IPPROTO_TCP || ntohs(ip->ip6_plen) > n - sizeof(*ip))
		return false;
	ret->tuple.six = true;
	ret->tuple.local = ip->ip6_dst;
	ret->tuple.peer = ip->ip6_src;
	ret->tcp = data + sizeof(*ip);
	ret->n = ntohs(ip->ip6_plen);
	return true;
}

static bool parse(const ProtobufCBinaryData *d, struct packet *ret)
{
	*ret = (struct packet){0};
	if (d->len < 1 || !(d->data[0] >> 4 == 4   ? parse4(d->data, d->len, ret)
			    : d->data[0] >> 4 == 6 ? parse6(d->data, d->len, ret)
						   : false))
		return false;
	const struct tcphdr *t = (const struct tcphdr *)ret->tcp;

	if (ret->n < sizeof(*t))
		return false;
	ret->tuple.local_port = t->th_dport;
	ret->tuple.peer_port = t->th_sport;
	ret->asks = (t->th_flags & (TH_SYN | TH_ACK)) == TH_SYN;
	return true;
}

static uint32_t add(uint32_t sum, const void *p, size_t n)
{
	const uint8_t *b = p;

	for (; n > 1; n -= 2, b += 2)
		sum += (uint32_t)b[0] << 8 | b[1];
	if (n)
		sum += (uint32_t)b[0] << 8;
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return sum;
}

static bool complete_checksum(struct packet *p)
{
	struct tcphdr *t = (struct tcphdr *)p->tcp;
	size_t size = p->tuple.six ? 16 : 4;
	uint8_t rest[4] = {0, IPPROTO_TCP, (uint8_t)(p->n >> 8), (uint8_t)p->n};
	uint32_t pseudo = add(add(add(0, &p->tuple.peer, size), &p->tuple.local, size), rest, sizeof(rest));

	if (add(pseudo, p->tcp, p->n) == 0xffff)
		return true;
	if (ntohs(t->th_sum) != pseudo)
		return false;
	t->th_sum = 0;
	t->th_sum = htons((uint16_t)~add(pseudo, p->tcp, p->n));
	return true;
}

static bool belongs(const struct packet *p, const struct hold_tuple *v, size_t n)
{
	static const struct in6_addr any;

	for (size_t i = 0; i < n; i++) {
		const struct hold_tuple *t = &v[i], *q = &p->tuple;
		bool local = t->six == q->six && !memcmp(&t->local, &q->local, sizeof(any));

		if (t->local_port != q->local_port)
			continue;
		if (!t->peer_port && p->asks && (local || !memcmp(&t->local, &any, sizeof(any))))
			return true;
		if (local && t->peer_port == q->peer_port && !memcmp(&t->peer, &q->peer, sizeof(any)))
			return true;
	}
	return false;
}

static bool send4(struct packets_raw *raw, const ProtobufCBinaryData *d, const struct packet *p)
{
	struct sockaddr_in to = {.sin_family = AF_INET};

	memcpy(&to.sin_addr, &p->tuple.local, 4);
	if (raw->v4 < 0)
		raw->v4 = socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_RAW);
	return sendto(raw->v4, d->data, (size_t)(p->tcp - d->data) + p->n, MSG_DONTWAIT,
		      (struct sockaddr *)&to, sizeof(to)) > 0;
}

static bool send6(struct packets_raw *raw, const ProtobufCBinaryData *d, const struct packet *p)
{
	struct sockaddr_in6 to = {.sin6_family = AF_INET6, .sin6_addr = p->tuple.local};

	if (raw->v6 < 0)
		raw->v6 = socket(AF_INET6, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_RAW);
	return sendto(raw->v6, d->data, (size_t)(p->tcp - d->data) + p->n, MSG_DONTWAIT,
		      (struct sockaddr *)&to, sizeof(to)) > 0;
}

size_t packets_put(struct packets_raw *raw, const ProtobufCBinaryData *list, size_t n,
		   const struct hold_tuple *v, size_t n_v)
{
	struct packet p;
	size_t done = 0;

	for (size_t i = 0; i < n; i++)
		if (parse(&list[i], &p) && belongs(&p, v, n_v) && complete_checksum(&p))
			done += p.tuple.six ? send6(raw, &list[i], &p) : send4(raw, &list[i], &p);
	return done;
}

void packets_raw_close(struct packets_raw *raw)
{
	if (raw->v4 >= 0)
		close(raw->v4);
	if (raw->v6 >= 0)
		close(raw->v6);
	*raw = (struct packets_raw)PACKETS_RAW_INIT;
}
