/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Addresses of the host, by rtnetlink(7).  One that comes here is added with a full-length prefix (it brings
 * no route with it) to the interface on which packets to the peer leave; then neighbours are told where it is
 * now: by an ARP request that nobody need answer, or an unsolicited neighbour advertisement.
 */
#include "state/sockets/address.h"

#include <arpa/inet.h>
#include <errno.h>
#include <ifaddrs.h>
#include <linux/if_addr.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <netinet/icmp6.h>
#include <netlink/attr.h>
#include <netlink/msg.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/util.h"

#define LOCAL_US    100 /* between looks whether an address is in use */
#define LOCAL_TRIES 1000

static bool is_six(const union inet_address *a)
{
	return a->sa.sa_family == AF_INET6 && !IN6_IS_ADDR_V4MAPPED(&a->v6.sin6_addr);
}

/* As packets have it. */
static const void *bytes_of(const union inet_address *a)
{
	return a->sa.sa_family == AF_INET ? (const void *)&a->v4.sin_addr
	       : is_six(a)                ? (const void *)&a->v6.sin6_addr
					  : (const void *)(a->v6.sin6_addr.s6_addr + 12);
}

static size_t size_of(const union inet_address *a)
{
	return is_six(a) ? 16 : 4;
}

bool address_can_move(const union inet_address *a)
{
	if (is_six(a))
		return !IN6_IS_ADDR_LOOPBACK(&a->v6.sin6_addr) && !IN6_IS_ADDR_LINKLOCAL(&a->v6.sin6_addr);
	return *(const uint8_t *)bytes_of(a) != 127;
}

/* The interface that has it: its index and the length of the prefix. */
static bool find(const union inet_address *a, unsigned *ret_index, unsigned *ret_prefix)
{
	struct ifaddrs *all, *i;
	bool found = false;

	if (getifaddrs(&all) < 0)
		return false;
	for (i = all; i && !found; i = i->ifa_next) {
		const union inet_address *here = (const union inet_address *)i->ifa_addr;
		const uint8_t *mask;

		if (!here || (here->sa.sa_family != AF_INET && here->sa.sa_family != AF_INET6) ||
		    size_of(here) != size_of(a) || memcmp(bytes_of(here), bytes_of(a), size_of(a)))
			continue;
		found = true;
		*ret_index = if_nametoindex(i->ifa_name);
		*ret_prefix = (unsigned)size_of(a) * 8;
		mask = i->ifa_netmask ? bytes_of((const union inet_address *)i->ifa_netmask) : NULL;
		for (size_t k = 0; mask && k < size_of(a); k++)
			*ret_prefix -= 8 - (unsigned)__builtin_popcount(mask[k]);
	}
	freeifaddrs(all);
	return found;
}

bool address_is_here(const union inet_address *a)
{
	unsigned index, prefix;

	return find(a, &index, &prefix);
}

/* --- rtnetlink ------------------------------------------------------------------------------------------ */

static struct nl_msg *message(uint16_t type, uint16_t flags, const void *header, size_t n)
{
	struct nl_msg *m = nlmsg_alloc_size(4096);

	if (!m || !nlmsg_put(m, 0, 1, type, (int)n, NLM_F_REQUEST | flags))
		abort(); /* no memory */
	memcpy(nlmsg_data(nlmsg_hdr(m)), header, n);
	return m;
}

/* The answer, or the result if there is no other. */
static int ask(struct nl_msg *m, void *ret, size_t size)
{
	cleanup_close int sock = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
	int r = sock < 0 || send(sock, nlmsg_hdr(m), nlmsg_hdr(m)->nlmsg_len, 0) < 0 ? -errno : 0;

	nlmsg_free(m);
	if (r < 0)
		return r;
	ssize_t n = recv(sock, ret, size, 0);
	const struct nlmsghdr *h = ret;

	if (n < (ssize_t)sizeof(*h))
		return n < 0 ? -errno : -EPROTO;
	return h->nlmsg_type == NLMSG_ERROR ? ((const struct nlmsgerr *)nlmsg_data(h))->error : 0;
}

/* The route to @to: *ret_type is RTN_LOCAL if it is an address of ours. */
static int route_to(const union inet_address *to, unsigned *ret_index, unsigned char *ret_type)
{
	struct rtmsg header = {.rtm_family = is_six(to) ? AF_INET6 : AF_INET,
			       .rtm_dst_len = (unsigned char)(size_of(to) * 8)};
	struct nl_msg *m = message(RTM_GETROUTE, 0, &header, sizeof(header));
	_Alignas(struct nlmsghdr) char buffer[4096];

	nla_put(m, RTA_DST, (int)size_of(to), bytes_of(to));
	int r = ask(m, buffer, sizeof(buffer));
	const struct nlattr *oif =
		r < 0 ? NULL : nlmsg_find_attr((struct nlmsghdr *)buffer, sizeof(header), RTA_OIF);

	if (r < 0)
		return r;
	if (!oif)
		return -ENETUNREACH;
	*ret_index = nla_get_u32(oif);
	*ret_type = ((struct rtmsg *)nlmsg_data((struct nlmsghdr *)buffer))->rtm_type;
	return 0;
}

static int interface_to(const union inet_address *peer, unsigned *ret)
{
	unsigned char type;

	return route_to(peer, ret, &type);
}

/* The kernel adds an IPv6 address at once and takes packets for it a little later. */
static void wait_until_local(const union inet_address *a)
{
	unsigned char type = RTN_UNSPEC;
	unsigned index;

	for (int i = 0; i < LOCAL_TRIES && (route_to(a, &index, &type) < 0 || type != RTN_LOCAL); i++)
		usleep(LOCAL_US);
}

static int change(uint16_t type, uint16_t flags, const union inet_address *a, unsigned index, unsigned prefix)
{
	struct ifaddrmsg header = {.ifa_family = is_six(a) ? AF_INET6 : AF_INET,
				   .ifa_prefixlen = (uint8_t)prefix,
				   .ifa_flags = is_six(a) ? IFA_F_NODAD : 0,
				   .ifa_index = index};
	struct nl_msg *m = message(type, NLM_F_ACK | flags, &header, sizeof(header));
	_Alignas(struct nlmsghdr) char buffer[4096];

	nla_put(m, IFA_LOCAL, (int)size_of(a), bytes_of(a));
	return ask(m, buffer, sizeof(buffer));
}

/* --- neighbours ----------------------------------------------------------------------------------------- */

static int hardware_address(unsigned index, uint8_t ret[6])
{
	struct ifreq q = {0};
	cleanup_close int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	if (fd < 0 || !if_indextoname(index, q.ifr_name) || ioctl(fd, SIOCGIFHWADDR, &q) < 0)
		return -1;
	memcpy(ret, q.ifr_hwaddr.sa_data, 6);
	return q.ifr_hwaddr.sa_family == ARPHRD_ETHER ? 0 : -1;
}

static void announce4(const union inet_address *a, unsigned index, const uint8_t mac[6])
{
	struct {
		struct arphdr head;
		uint8_t from_mac[6], from[4], to_mac[6], to[4];
	} __attribute__((packed))
	q = {{htons(ARPHRD_ETHER), htons(ETH_P_IP), 6, 4, htons(ARPOP_REQUEST)}, {0}, {0}, {0}, {0}};
	struct sockaddr_ll to = {.sll_family = AF_PACKET,
				 .sll_protocol = htons(ETH_P_ARP),
				 .sll_ifindex = (int)index,
				 .sll_halen = 6,
				 .sll_addr = {255, 255, 255, 255, 255, 255}};
	/* Its end waits for all CPUs, some 10 ms: that is for the end of this process. */
	static int fd = -1;

	memcpy(q.from_mac, mac, 6);
	memcpy(q.from, bytes_of(a), 4);
	memcpy(q.to, bytes_of(a), 4);
	if (fd < 0)
		fd = socket(AF_PACKET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd >= 0)
		(void)!sendto(fd, &q, sizeof(q), 0, (struct sockaddr *)&to, sizeof(to));
}

static void announce6(const union inet_address *a, unsigned index, const uint8_t mac[6])
{
	struct {
		struct nd_neighbor_advert head;
		struct nd_opt_hdr option;
		uint8_t mac[6];
	} __attribute__((packed)) q = {.option = {ND_OPT_TARGET_LINKADDR, 1}};
	struct sockaddr_in6 from = {.sin6_family = AF_INET6, .sin6_addr = a->v6.sin6_addr};
	struct sockaddr_in6 all = {.sin6_family = AF_INET6, .sin6_scope_id = index};
	cleanup_close int fd = socket(AF_INET6, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_ICMPV6);
	int hops = 255;

	all.sin6_addr.s6_addr[0] = 0xff;
	all.sin6_addr.s6_addr[1] = 2;
	all.sin6_addr.s6_addr[15] = 1;
	q.head.nd_na_hdr.icmp6_type = ND_NEIGHBOR_ADVERT;
	q.head.nd_na_hdr.icmp6_dataun.icmp6_un_data32[0] = ND_NA_FLAG_OVERRIDE;
	q.head.nd_na_target = a->v6.sin6_addr;
	memcpy(q.mac, mac, 6);
	if (fd >= 0 && bind(fd, (struct sockaddr *)&from, sizeof(from)) == 0 &&
	    setsockopt(fd, SOL_IPV6, IPV6_MULTICAST_HOPS, &hops, sizeof(hops)) == 0)
		(void)!sendto(fd, &q, sizeof(q), 0, (struct sockaddr *)&all, sizeof(all));
}

/* --- moving --------------------------------------------------------------------------------------------- */

static int fail(int r, const char *what, const union inet_address *a, struct error *e)
{
	char text[INET_TEXT];

	return error_set(e, -r, "%s the address of %s", what, inet_text(a, text, sizeof(text)));
}

int address_check(const union inet_address *a, const union inet_address *peer, struct error *e)
{
	unsigned index;
	int r = interface_to(peer, &index);

	return r < 0 ? fail(r, "no interface here for", a, e) : 0;
}

int address_take(const union inet_address *a, const union inet_address *peer, struct error *e)
{
	unsigned index, prefix;
	uint8_t mac[6];
	bool here = find(a, &index, &prefix);
	int r = here ? 0 : interface_to(peer, &index);

	prefix = (unsigned)size_of(a) * 8;
	if (r >= 0 && !here)
		r = change(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, a, index, prefix);
	if (r < 0 && r != -EEXIST)
		return fail(r, "adding", a, e);
	wait_until_local(a);
	if (hardware_address(index, mac) < 0)
		return 0;
	if (is_six(a))
		announce6(a, index, mac);
	else
		announce4(a, index, mac);
	return 0;
}

int address_drop(const union inet_address *a, struct error *e)
{
	unsigned index, prefix;

	if (!find(a, &index, &prefix))
		return 0;
	int r = change(RTM_DELADDR, 0, a, index, prefix);

	return r < 0 && r != -EADDRNOTAVAIL ? fail(r, "removing", a, e) : 0;
}

/* --- as text -------------------------------------------------------------------------------------------- */

void address_text(const union inet_address *a, char *ret, size_t size)
{
	if (!inet_ntop(is_six(a) ? AF_INET6 : AF_INET, bytes_of(a), ret, (socklen_t)size))
		snprintf(ret, size, "?");
}

static int parse(const char *text, union inet_address *ret, struct error *e)
{
	*ret = (union inet_address){.sa.sa_family = strchr(text, ':') ? AF_INET6 : AF_INET};
	void *bytes = ret->sa.sa_family == AF_INET6 ? (void *)&ret->v6.sin6_addr : (void *)&ret->v4.sin_addr;

	return inet_pton(ret->sa.sa_family, text, bytes) == 1
		       ? 0
		       : error_say(e, EINVAL, "\"%s\" is not an address", text);
}

int address_take_text(const char *a, const char *peer, struct error *e)
{
	union inet_address local, remote;
	int r = parse(a, &local, e);

	if (r >= 0)
		r = parse(peer, &remote, e);
	return r < 0 ? r : address_take(&local, &remote, e);
}

int address_drop_text(const char *a, struct error *e)
{
	union inet_address local;
	int r = parse(a, &local, e);

	return r < 0 ? r : address_drop(&local, e);
}
