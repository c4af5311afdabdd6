/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memberships of multicast groups.  The kernel lists the groups of a device (/proc/PID/net/igmp, igmp6), not
 * those of a socket; but it tells the source filter of a socket's membership (MCAST_MSFILTER), and says
 * EADDRNOTAVAIL where there is none.  So each group of each device is asked for.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <net/if.h>
#include <string.h>
#include <sys/socket.h>

#include "base/util.h"
#include "state/sockets/groups.h"

#define MAX_SOURCES 128

union filter {
	struct group_filter f;
	uint8_t room[GROUP_FILTER_SIZE(MAX_SOURCES)];
};

static void put_ip(struct sockaddr_storage *to, int domain, const void *ip)
{
	memset(to, 0, sizeof(*to));
	to->ss_family = domain;
	if (domain == AF_INET6)
		memcpy(&((struct sockaddr_in6 *)to)->sin6_addr, ip, 16);
	else
		memcpy(&((struct sockaddr_in *)to)->sin_addr, ip, 4);
}

static ProtobufCBinaryData get_ip(const struct sockaddr_storage *from)
{
	size_t n = from->ss_family == AF_INET6 ? 16 : 4;
	const void *ip = n == 16 ? (const void *)&((const struct sockaddr_in6 *)from)->sin6_addr
				 : (const void *)&((const struct sockaddr_in *)from)->sin_addr;

	return (ProtobufCBinaryData){.len = n, .data = xmemdup(ip, n)};
}

static void add(Ferry__DgramSocket *m, const char *device, const union filter *x)
{
	Ferry__GroupMembership *g = xmalloc(sizeof(*g));

	ferry__group_membership__init(g);
	g->group = get_ip(&x->f.gf_group);
	g->device = xstrdup(device);
	g->exclude = x->f.gf_fmode == MCAST_EXCLUDE;
	g->n_sources = x->f.gf_numsrc;
	g->sources = xcalloc(g->n_sources + 1, sizeof(*g->sources));
	for (size_t i = 0; i < g->n_sources; i++)
		g->sources[i] = get_ip(&x->f.gf_slist[i]);
	m->groups = xrealloc(m->groups, (m->n_groups + 1) * sizeof(*m->groups));
	m->groups[m->n_groups++] = g;
}

static int ask(const struct fd_facts *f, int domain, const char *device, unsigned index, const void *ip,
	       Ferry__DgramSocket *m, struct error *e)
{
	union filter x = {.f = {.gf_interface = index, .gf_numsrc = MAX_SOURCES}};
	socklen_t n = sizeof(x);

	put_ip(&x.f.gf_group, domain, ip);
	if (getsockopt(f->copy, domain == AF_INET6 ? SOL_IPV6 : SOL_IP, MCAST_MSFILTER, &x, &n) < 0)
		return 0;
	if (x.f.gf_numsrc > MAX_SOURCES)
		return error_say(
			e, ENOTSUP,
			"pid %d fd %d: its socket has a multicast group with %u sources, more than %u",
			f->pid, f->fd, x.f.gf_numsrc, MAX_SOURCES);
	add(m, device, &x);
	return 0;
}

/* "2\teth0 : 1 V3", then lines "\t\t\t\tFB0000E0 1 ..." of its groups, as the kernel keeps the address. */
static int ask_v4(const struct fd_facts *f, char *text, Ferry__DgramSocket *m, struct error *e)
{
	char device[IF_NAMESIZE] = "", *next;
	unsigned index = 0;
	int r = 0;

	for (char *line = text; line && *line && r >= 0; line = next) {
		next = strchr(line, '\n');
		if (next)
			*next++ = 0;
		if (*line != '\t') {
			index = 0;
			if (sscanf(line, "%u %15[^ :]", &index, device) != 2)
				index = 0;
		} else if (index) {
			uint32_t ip = strtoul(line, NULL, 16);

			r = ask(f, AF_INET, device, index, &ip, m, e);
		}
	}
	return r;
}

/* "2    eth0            ff0200000000000000000000000000fb     1 0000000C 0" */
static int ask_v6(const struct fd_facts *f, char *text, Ferry__DgramSocket *m, struct error *e)
{
	char device[IF_NAMESIZE], hex[33], *next;
	unsigned index;
	int r = 0;

	for (char *line = text; line && *line && r >= 0; line = next) {
		uint8_t ip[16];

		next = strchr(line, '\n');
		if (next)
			*next++ = 0;
		if (sscanf(line, "%u %15s %32s", &index, device, hex) != 3 || strlen(hex) != 32)
			continue;
		for (int i = 0; i < 16; i++)
			sscanf(hex + 2 * i, "%2hhx", &ip[i]);
		r = ask(f, AF_INET6, device, index, ip, m, e);
	}
	return r;
}

int groups_capture(const struct fd_facts *f, Ferry__DgramSocket *m, struct error *e)
{
	char path[64];
	cleanup_free char *v4 = NULL, *v6 = NULL;

	/* An IPv6 socket can be in groups of IPv4, too. */
	snprintf(path, sizeof(path), "/proc/%d/net/igmp", f->living);
	int r = read_file(path, &v4) > 0 ? ask_v4(f, v4, m, e) : 0;

	snprintf(path, sizeof(path), "/proc/%d/net/igmp6", f->living);
	if (r >= 0 && f->domain == AF_INET6 && read_file(path, &v6) > 0)
		r = ask_v6(f, v6, m, e);
	return r;
}

/* --- rebuild -------------------------------------------------------------------------------------------- */

int groups_check(const FileDescription *m, struct error *e)
{
	const Ferry__DgramSocket *d = m->socket->dgram;

	for (size_t i = 0; i < d->n_groups; i++)
		if (!if_nametoindex(d->groups[i]->device))
			return error_set(
				e, errno,
				"pid %d fd %d: network device %s, of a multicast group of its socket", m->pid,
				m->fd, d->groups[i]->device);
	return 0;
}

static int join(int fd, const FileDescription *m, const Ferry__GroupMembership *g, struct error *e)
{
	bool six = g->group.len == 16;
	int level = six ? SOL_IPV6 : SOL_IP;
	struct group_req request = {.gr_interface = if_nametoindex(g->device)};
	union filter x = {.f = {.gf_interface = request.gr_interface,
				.gf_fmode = g->exclude ? MCAST_EXCLUDE : MCAST_INCLUDE,
				.gf_numsrc = g->n_sources}};
	char text[INET6_ADDRSTRLEN] = "?";

	if ((!six && g->group.len != 4) || g->n_sources > MAX_SOURCES)
		return error_say(e, EPROTO, "pid %d fd %d: the image has a multicast group that is none",
				 m->pid, m->fd);
	inet_ntop(six ? AF_INET6 : AF_INET, g->group.data, text, sizeof(text));
	put_ip(&request.gr_group, six ? AF_INET6 : AF_INET, g->group.data);
	if (setsockopt(fd, level, MCAST_JOIN_GROUP, &request, sizeof(request)) < 0)
		return error_set(e, errno, "pid %d fd %d: joining multicast group %s on %s", m->pid, m->fd,
				 text, g->device);
	if (g->exclude && !g->n_sources)
		return 0;
	x.f.gf_group = request.gr_group;
	for (size_t i = 0; i < g->n_sources; i++) {
		if (g->sources[i].len != g->group.len)
			return error_say(e, EPROTO, "pid %d fd %d: the image has a source of %zu bytes",
					 m->pid, m->fd, g->sources[i].len);
		put_ip(&x.f.gf_slist[i], six ? AF_INET6 : AF_INET, g->sources[i].data);
	}
	if (setsockopt(fd, level, MCAST_MSFILTER, &x, GROUP_FILTER_SIZE(g->n_sources)) < 0)
		return error_set(e, errno, "pid %d fd %d: the sources of multicast group %s on %s", m->pid,
				 m->fd, text, g->device);
	return 0;
}

int groups_join(int fd, const FileDescription *m, struct error *e)
{
	const Ferry__DgramSocket *d = m->socket->dgram;
	int r = 0;

	for (size_t i = 0; i < d->n_groups && r >= 0; i++)
		r = join(fd, m, d->groups[i], e);
	return r;
}
