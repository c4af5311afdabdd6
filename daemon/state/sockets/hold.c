/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A table of family inet with two chains, behind everything else on the way in and before everything else on
 * the way out, where packets have the addresses that the socket has.  Each looks its packets up in a set of
 * connections, as (own address, own port, peer's address, peer's port), one for IPv4 and one for IPv6.
 * Requests for new connections are looked up in sets of listeners as well.
 *
 * Why both ways: a packet that slips in while the rules come into force is taken by the socket, but its
 * acknowledgement is dropped, so the peer sends it again, to wherever the connection is by then.
 *
 * Requests go as one transaction (a batch of nfnetlink): all of it, or nothing.
 */
#include "state/sockets/hold.h"

#include <errno.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter_ipv4.h>
#include <netlink/attr.h>
#include <netlink/msg.h>
#include <string.h>
#include <sys/socket.h>

#include "base/util.h"

#define CONNECTIONS4 "connections4"
#define CONNECTIONS6 "connections6"
#define LISTENERS4   "listeners4"
#define LISTENERS6   "listeners6"
#define PORTS        "ports" /* of listeners at any address */
#define MAX_TUPLES   400     /* in a message: attributes are limited to 64 KiB */

struct hold {
	int sock;
	char name[64];
};

/* --- transactions --------------------------------------------------------------------------------------- */

struct request {
	uint8_t *data;
	size_t n, cap;
	uint32_t messages;
	uint16_t group; /* of rules that are added */
};

static void append(struct request *q, struct nl_msg *m)
{
	struct nlmsghdr *h = nlmsg_hdr(m);
	size_t n = NLMSG_ALIGN(h->nlmsg_len);

	h->nlmsg_seq = ++q->messages;
	if (q->n + n > q->cap) {
		q->cap = (q->n + n) * 2;
		q->data = xrealloc(q->data, q->cap);
	}
	memset(q->data + q->n, 0, n);
	memcpy(q->data + q->n, h, h->nlmsg_len);
	q->n += n;
	nlmsg_free(m);
}

static struct nl_msg *message(uint16_t type, uint16_t flags, uint8_t family, uint16_t resource)
{
	struct nl_msg *m = nlmsg_alloc_size(1 << 16);

	if (!m || !nlmsg_put(m, 0, 1, type, sizeof(struct nfgenmsg), NLM_F_REQUEST | flags))
		abort(); /* no memory */
	struct nfgenmsg *g = nlmsg_data(nlmsg_hdr(m));

	*g = (struct nfgenmsg){family, NFNETLINK_V0, htons(resource)};
	return m;
}

static struct nl_msg *command(uint16_t what, uint16_t flags)
{
	return message(NFNL_SUBSYS_NFTABLES << 8 | what, NLM_F_ACK | flags, NFPROTO_INET, 0);
}

static void begin(struct request *q)
{
	*q = (struct request){0};
	append(q, message(NFNL_MSG_BATCH_BEGIN, 0, AF_UNSPEC, NFNL_SUBSYS_NFTABLES));
}

static int send_all(int sock, const struct request *q)
{
	struct sockaddr_nl to = {.nl_family = AF_NETLINK};
	int size = (int)q->n * 2;

	/* One transaction is one message, whatever its size. */
	if (q->n > 100000 && setsockopt(sock, SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof(size)) < 0)
		return -errno;
	return sendto(sock, q->data, q->n, 0, (struct sockaddr *)&to, sizeof(to)) < 0 ? -errno : 0;
}

/* The kernel has answered when sendto() returns. The first error of any of its messages. */
static int take_answers(int sock)
{
	_Alignas(struct nlmsghdr) char buffer[16384];
	int first = 0;

	for (;;) {
		ssize_t got = recv(sock, buffer, sizeof(buffer), MSG_DONTWAIT);

		if (got < 0)
			return errno == EAGAIN ? first : -errno;
		int left = (int)got;

		for (struct nlmsghdr *h = (struct nlmsghdr *)buffer; nlmsg_ok(h, left);
		     h = nlmsg_next(h, &left)) {
			const struct nlmsgerr *a = nlmsg_data(h);

			if (h->nlmsg_type == NLMSG_ERROR && a->error && !first)
				first = a->error;
		}
	}
}

static int commit(int sock, struct request *q)
{
	append(q, message(NFNL_MSG_BATCH_END, 0, AF_UNSPEC, NFNL_SUBSYS_NFTABLES));
	int r = send_all(sock, q);

	free(q->data);
	return r < 0 ? r : take_answers(sock);
}

/* --- rules ---------------------------------------------------------------------------------------------- */

static struct nlattr *open_expression(struct nl_msg *m, const char *name, struct nlattr **ret_element)
{
	*ret_element = nla_nest_start(m, NFTA_LIST_ELEM);
	nla_put_string(m, NFTA_EXPR_NAME, name);
	return nla_nest_start(m, NFTA_EXPR_DATA);
}

static void close_expression(struct nl_msg *m, struct nlattr *data, struct nlattr *element)
{
	nla_nest_end(m, data);
	nla_nest_end(m, element);
}

static void put_u32(struct nl_msg *m, int type, uint32_t value)
{
	nla_put_u32(m, type, htonl(value));
}

static void put_compare(struct nl_msg *m, const void *value, size_t n)
{
	struct nlattr *element, *data = open_expression(m, "cmp", &element), *nested;

	put_u32(m, NFTA_CMP_SREG, NFT_REG32_00);
	put_u32(m, NFTA_CMP_OP, NFT_CMP_EQ);
	nested = nla_nest_start(m, NFTA_CMP_DATA);
	nla_put(m, NFTA_DATA_VALUE, (int)n, value);
	nla_nest_end(m, nested);
	close_expression(m, data, element);
}

/* Go on only if this property of the packet is @value. */
static void put_match(struct nl_msg *m, uint32_t key, uint8_t value)
{
	struct nlattr *element, *data = open_expression(m, "meta", &element);

	put_u32(m, NFTA_META_DREG, NFT_REG32_00);
	put_u32(m, NFTA_META_KEY, key);
	close_expression(m, data, element);
	put_compare(m, &value, 1);
}

static void put_load(struct nl_msg *m, unsigned reg, uint32_t base, uint32_t offset, uint32_t n)
{
	struct nlattr *element, *data = open_expression(m, "payload", &element);

	put_u32(m, NFTA_PAYLOAD_DREG, NFT_REG32_00 + reg);
	put_u32(m, NFTA_PAYLOAD_BASE, base);
	put_u32(m, NFTA_PAYLOAD_OFFSET, offset);
	put_u32(m, NFTA_PAYLOAD_LEN, n);
	close_expression(m, data, element);
}

static void put_lookup(struct nl_msg *m, const char *set)
{
	struct nlattr *element, *data = open_expression(m, "lookup", &element);

	nla_put_string(m, NFTA_LOOKUP_SET, set);
	put_u32(m, NFTA_LOOKUP_SREG, NFT_REG32_00);
	close_expression(m, data, element);
}

static void put_drop(struct nl_msg *m)
{
	struct nlattr *element, *data = open_expression(m, "immediate", &element), *value, *verdict;

	put_u32(m, NFTA_IMMEDIATE_DREG, NFT_REG_VERDICT);
	value = nla_nest_start(m, NFTA_IMMEDIATE_DATA);
	verdict = nla_nest_start(m, NFTA_DATA_VERDICT);
	put_u32(m, NFTA_VERDICT_CODE, NF_DROP);
	nla_nest_end(m, verdict);
	nla_nest_end(m, value);
	close_expression(m, data, element);
}

/* Only requests for a connection: SYN without ACK. */
static void put_syn(struct nl_msg *m)
{
	static const uint8_t mask = 0x12, none = 0, syn = 0x02;
	struct nlattr *element, *data, *nested;

	put_load(m, 0, NFT_PAYLOAD_TRANSPORT_HEADER, 13, 1);
	data = open_expression(m, "bitwise", &element);
	put_u32(m, NFTA_BITWISE_SREG, NFT_REG32_00);
	put_u32(m, NFTA_BITWISE_DREG, NFT_REG32_00);
	put_u32(m, NFTA_BITWISE_LEN, 1);
	nested = nla_nest_start(m, NFTA_BITWISE_MASK);
	nla_put(m, NFTA_DATA_VALUE, 1, &mask);
	nla_nest_end(m, nested);
	nested = nla_nest_start(m, NFTA_BITWISE_XOR);
	nla_put(m, NFTA_DATA_VALUE, 1, &none);
	nla_nest_end(m, nested);
	close_expression(m, data, element);
	put_compare(m, &syn, 1);
}

static struct nl_msg *open_rule(const char *table, const char *chain, struct nlattr **ret_all)
{
	struct nl_msg *m = command(NFT_MSG_NEWRULE, NLM_F_CREATE | NLM_F_APPEND);

	nla_put_string(m, NFTA_RULE_TABLE, table);
	nla_put_string(m, NFTA_RULE_CHAIN, chain);
	*ret_all = nla_nest_start(m, NFTA_RULE_EXPRESSIONS);
	return m;
}

static void put_log(struct nl_msg *m, uint16_t group)
{
	struct nlattr *element, *data = open_expression(m, "log", &element);

	nla_put_u16(m, NFTA_LOG_GROUP, htons(group));
	close_expression(m, data, element);
}

static void close_rule(struct request *q, struct nl_msg *m, struct nlattr *all, const char *set)
{
	put_lookup(m, set);
	if (q->group)
		put_log(m, q->group);
	put_drop(m);
	nla_nest_end(m, all);
	append(q, m);
}

/* Of an incoming packet the destination is the own end, of an outgoing one the source. */
static void add_connections(struct request *q, const char *table, const char *chain, bool in, bool six)
{
	unsigned words = six ? 4 : 1;
	uint32_t source = six ? 8 : 12, destination = six ? 24 : 16;
	struct nlattr *all;
	struct nl_msg *m = open_rule(table, chain, &all);

	put_match(m, NFT_META_NFPROTO, six ? NFPROTO_IPV6 : NFPROTO_IPV4);
	put_match(m, NFT_META_L4PROTO, IPPROTO_TCP);
	put_load(m, 0, NFT_PAYLOAD_NETWORK_HEADER, in ? destination : source, words * 4);
	put_load(m, words, NFT_PAYLOAD_TRANSPORT_HEADER, in ? 2 : 0, 2);
	put_load(m, words + 1, NFT_PAYLOAD_NETWORK_HEADER, in ? source : destination, words * 4);
	put_load(m, words * 2 + 1, NFT_PAYLOAD_TRANSPORT_HEADER, in ? 0 : 2, 2);
	close_rule(q, m, all, six ? CONNECTIONS6 : CONNECTIONS4);
}

static void add_listeners(struct request *q, const char *table, bool six)
{
	unsigned words = six ? 4 : 1;
	struct nlattr *all;
	struct nl_msg *m = open_rule(table, "in", &all);

	put_match(m, NFT_META_NFPROTO, six ? NFPROTO_IPV6 : NFPROTO_IPV4);
	put_match(m, NFT_META_L4PROTO, IPPROTO_TCP);
	put_syn(m);
	put_load(m, 0, NFT_PAYLOAD_NETWORK_HEADER, six ? 24 : 16, words * 4);
	put_load(m, words, NFT_PAYLOAD_TRANSPORT_HEADER, 2, 2);
	close_rule(q, m, all, six ? LISTENERS6 : LISTENERS4);
}

static void add_ports(struct request *q, const char *table)
{
	struct nlattr *all;
	struct nl_msg *m = open_rule(table, "in", &all);

	put_match(m, NFT_META_L4PROTO, IPPROTO_TCP);
	put_syn(m);
	put_load(m, 0, NFT_PAYLOAD_TRANSPORT_HEADER, 2, 2);
	close_rule(q, m, all, PORTS);
}

static void add_chain(struct request *q, const char *table, const char *chain, bool in)
{
	struct nl_msg *m = command(NFT_MSG_NEWCHAIN, NLM_F_CREATE);

	nla_put_string(m, NFTA_CHAIN_TABLE, table);
	nla_put_string(m, NFTA_CHAIN_NAME, chain);
	nla_put_string(m, NFTA_CHAIN_TYPE, "filter");
	struct nlattr *hook = nla_nest_start(m, NFTA_CHAIN_HOOK);

	put_u32(m, NFTA_HOOK_HOOKNUM, in ? NF_INET_LOCAL_IN : NF_INET_LOCAL_OUT);
	put_u32(m, NFTA_HOOK_PRIORITY,
		(uint32_t)(in ? NF_IP_PRI_CONNTRACK_CONFIRM - 1 : NF_IP_PRI_RAW - 100));
	nla_nest_end(m, hook);
	append(q, m);
	add_connections(q, table, chain, in, false);
	add_connections(q, table, chain, in, true);
}

static void add_set(struct request *q, const char *table, const char *set, uint32_t id, uint32_t key)
{
	struct nl_msg *m = command(NFT_MSG_NEWSET, NLM_F_CREATE);

	nla_put_string(m, NFTA_SET_TABLE, table);
	nla_put_string(m, NFTA_SET_NAME, set);
	put_u32(m, NFTA_SET_FLAGS, 0);
	put_u32(m, NFTA_SET_KEY_TYPE, 0);
	put_u32(m, NFTA_SET_KEY_LEN, key);
	put_u32(m, NFTA_SET_ID, id);
	append(q, m);
}

static void add_table(struct request *q, const char *name, bool owned)
{
	struct nl_msg *m = command(NFT_MSG_NEWTABLE, NLM_F_CREATE | NLM_F_EXCL);

	nla_put_string(m, NFTA_TABLE_NAME, name);
	put_u32(m, NFTA_TABLE_FLAGS, owned ? NFT_TABLE_F_OWNER : 0);
	append(q, m);
	add_set(q, name, CONNECTIONS4, 1, 16);
	add_set(q, name, CONNECTIONS6, 2, 40);
	add_set(q, name, LISTENERS4, 3, 8);
	add_set(q, name, LISTENERS6, 4, 20);
	add_set(q, name, PORTS, 5, 2);
	add_chain(q, name, "in", true);
	add_listeners(q, name, false);
	add_listeners(q, name, true);
	add_ports(q, name);
	q->group = 0;
	add_chain(q, name, "out", false);
}

/* --- elements ------------------------------------------------------------------------------------------- */

static const char *const sets[] = {CONNECTIONS4, CONNECTIONS6, LISTENERS4, LISTENERS6, PORTS};

static unsigned set_of(const struct hold_tuple *t)
{
	static const struct in6_addr any;

	if (t->peer_port)
		return t->six;
	return !memcmp(&t->local, &any, sizeof(any)) ? 4 : 2 + t->six;
}

static void put_element(struct nl_msg *m, const struct hold_tuple *t, unsigned set)
{
	size_t words = t->six ? 4 : 1, n = 0;
	uint8_t key[40] = {0};
	struct nlattr *element = nla_nest_start(m, NFTA_LIST_ELEM);
	struct nlattr *value = nla_nest_start(m, NFTA_SET_ELEM_KEY);

	if (set < 4) {
		memcpy(key, &t->local, words * 4);
		n = words * 4;
	}
	memcpy(key + n, &t->local_port, 2);
	n += set < 4 ? 4 : 2;
	if (set < 2) {
		memcpy(key + n, &t->peer, words * 4);
		memcpy(key + n + words * 4, &t->peer_port, 2);
		n += words * 4 + 4;
	}
	nla_put(m, NFTA_DATA_VALUE, (int)n, key);
	nla_nest_end(m, value);
	nla_nest_end(m, element);
}

static struct nl_msg *elements(const char *table, const char *set, uint16_t what, uint16_t flags)
{
	struct nl_msg *m = command(what, flags);

	nla_put_string(m, NFTA_SET_ELEM_LIST_TABLE, table);
	nla_put_string(m, NFTA_SET_ELEM_LIST_SET, set);
	return m;
}

static void add_some(struct request *q, const char *table, unsigned set, const struct hold_tuple *v, size_t n)
{
	for (size_t i = 0; i < n;) {
		struct nl_msg *m = NULL;
		struct nlattr *list = NULL;

		for (size_t k = 0; i < n && k < MAX_TUPLES; i++) {
			if (set_of(&v[i]) != set)
				continue;
			if (!m) {
				m = elements(table, sets[set], NFT_MSG_NEWSETELEM, NLM_F_CREATE);
				list = nla_nest_start(m, NFTA_SET_ELEM_LIST_ELEMENTS);
			}
			put_element(m, &v[i], set);
			k++;
		}
		if (m) {
			nla_nest_end(m, list);
			append(q, m);
		}
	}
}

static void add_tuples(struct request *q, const char *table, const struct hold_tuple *v, size_t n)
{
	for (unsigned set = 0; set < ARRAY_SIZE(sets); set++)
		add_some(q, table, set, v, n);
}

/* --- holds ---------------------------------------------------------------------------------------------- */

static int open_netlink(struct error *e)
{
	int sock = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_NETFILTER);

	return sock < 0 ? error_set(e, errno, "packets of TCP connections cannot be held back: no netfilter")
			: sock;
}

static int fail(int r, struct error *e)
{
	return error_set(e, -r, "packets of TCP connections cannot be held back (nf_tables)");
}

int hold_new(struct hold **ret, const char *name, uint16_t group, struct error *e)
{
	struct request q;
	cleanup_close int sock = open_netlink(e);

	if (sock < 0)
		return sock;
	begin(&q);
	q.group = group;
	add_table(&q, name, true);
	int r = commit(sock, &q);

	if (r < 0)
		return fail(r, e);
	struct hold *h = xcalloc(1, sizeof(*h));

	snprintf(h->name, sizeof(h->name), "%s", name);
	h->sock = TAKE_FD(sock);
	*ret = h;
	return 0;
}

int hold_add(struct hold *h, const struct hold_tuple *v, size_t n, struct error *e)
{
	struct request q;

	if (!n)
		return 0;
	begin(&q);
	add_tuples(&q, h->name, v, n);
	int r = commit(h->sock, &q);

	return r < 0 ? fail(r, e) : 0;
}

int hold_clear(struct hold *h, struct error *e)
{
	struct request q;

	begin(&q);
	for (size_t i = 0; i < ARRAY_SIZE(sets); i++)
		append(&q, elements(h->name, sets[i], NFT_MSG_DELSETELEM, 0));
	int r = commit(h->sock, &q);

	return r < 0 ? fail(r, e) : 0;
}

void hold_free(struct hold *h)
{
	if (!h)
		return;
	close(h->sock);
	free(h);
}

int hold_keep(const struct hold *h, const char *name, const struct hold_tuple *v, size_t n, struct error *e)
{
	struct request q;

	begin(&q);
	add_table(&q, name, false);
	add_tuples(&q, name, v, n);
	int r = commit(h->sock, &q);

	return r < 0 ? fail(r, e) : 0;
}

/* A transaction that fails waits for all CPUs, some 10 ms; so does the end of a socket soon after one. */
static bool exists(int sock, const char *name)
{
	struct nl_msg *m = command(NFT_MSG_GETTABLE, 0);

	nla_put_string(m, NFTA_TABLE_NAME, name);
	ssize_t sent = send(sock, nlmsg_hdr(m), nlmsg_hdr(m)->nlmsg_len, 0);

	nlmsg_free(m);
	return sent > 0 && take_answers(sock) != -ENOENT;
}

static int remove_by(int sock, const char *name, struct error *e)
{
	struct request q;

	if (!exists(sock, name))
		return 0;
	begin(&q);
	struct nl_msg *m = command(NFT_MSG_DELTABLE, 0);

	nla_put_string(m, NFTA_TABLE_NAME, name);
	append(&q, m);
	int r = commit(sock, &q);

	return r < 0 && r != -ENOENT
		       ? error_set(e, -r, "the rules of nf_tables table %s, which hold back packets, stay",
				   name)
		       : 0;
}

int hold_remove_kept(const struct hold *h, const char *name, struct error *e)
{
	return remove_by(h->sock, name, e);
}

int hold_remove(const char *name, struct error *e)
{
	cleanup_close int sock = open_netlink(e);

	return sock < 0 ? sock : remove_by(sock, name, e);
}
