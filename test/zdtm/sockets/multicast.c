/* SPDX-License-Identifier: Apache-2.0 */
/* Memberships of multicast groups, of IPv4 and IPv6, with sources that are wanted and that are not. */
#include <arpa/inet.h>
#include <net/if.h>
#include <netinet/in.h>

#include "sockopt.h"

static unsigned lo;

static struct group_source_req group(int family, const char *ip, const char *source)
{
	struct group_source_req q = {.gsr_interface = lo};
	struct sockaddr_in *v4 = (struct sockaddr_in *)&q.gsr_group,
			   *s4 = (struct sockaddr_in *)&q.gsr_source;
	struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&q.gsr_group;

	q.gsr_group.ss_family = q.gsr_source.ss_family = family;
	inet_pton(family, ip, family == AF_INET ? (void *)&v4->sin_addr : (void *)&v6->sin6_addr);
	if (source)
		inet_pton(family, source,
			  family == AF_INET ? (void *)&s4->sin_addr
					    : (void *)&((struct sockaddr_in6 *)&q.gsr_source)->sin6_addr);
	return q;
}

static void join(int fd, int level, int name, struct group_source_req q)
{
	struct group_req plain = {.gr_interface = q.gsr_interface, .gr_group = q.gsr_group};

	if (name == MCAST_JOIN_GROUP)
		MUST(setsockopt(fd, level, name, &plain, sizeof(plain)));
	else
		MUST(setsockopt(fd, level, name, &q, sizeof(q)));
}

/* Leaving says whether it was in. */
static void leave(int fd, int level, struct group_source_req q, bool was_in)
{
	struct group_req plain = {.gr_interface = q.gsr_interface, .gr_group = q.gsr_group};
	bool in = setsockopt(fd, level, MCAST_LEAVE_GROUP, &plain, sizeof(plain)) == 0;

	CHECK(in == was_in, "the socket is %sin a group", in ? "" : "not ");
}

static unsigned sources(int fd, int level, struct group_source_req q, uint32_t *ret_mode)
{
	struct group_filter f = {.gf_interface = q.gsr_interface, .gf_group = q.gsr_group};
	socklen_t n = sizeof(f);

	MUST(getsockopt(fd, level, MCAST_MSFILTER, &f, &n));
	*ret_mode = f.gf_fmode;
	return f.gf_numsrc;
}

int main(int argc, char **argv)
{
	char b[8];
	uint32_t mode;

	test_init(argc, argv);
	lo = if_nametoindex("lo");
	int fd = MUST(socket(AF_INET, SOCK_DGRAM, 0)), other = MUST(socket(AF_INET, SOCK_DGRAM, 0));
	int six = socket(AF_INET6, SOCK_DGRAM, 0);
	struct group_source_req plain = group(AF_INET, "239.1.2.3", NULL),
				only = group(AF_INET, "232.1.2.4", "127.0.0.1"),
				never = group(AF_INET, "239.1.2.5", "10.0.0.9"),
				plain6 = group(AF_INET6, "ff05::1234", NULL);
	struct sockaddr_in any = {.sin_family = AF_INET}, to = {.sin_family = AF_INET};
	struct in_addr via = {htonl(INADDR_LOOPBACK)};
	socklen_t n = sizeof(any);
	int off = 0;

	if (six < 0)
		test_skip("no IPv6");
	MUST(setsockopt(fd, SOL_IP, IP_MULTICAST_ALL, &off, sizeof(off)));
	MUST(bind(fd, (struct sockaddr *)&any, sizeof(any)));
	MUST(getsockname(fd, (struct sockaddr *)&any, &n));
	join(fd, SOL_IP, MCAST_JOIN_GROUP, plain);
	join(fd, SOL_IP, MCAST_JOIN_SOURCE_GROUP, only);
	join(fd, SOL_IP, MCAST_JOIN_GROUP, never);
	join(fd, SOL_IP, MCAST_BLOCK_SOURCE, never);
	join(six, SOL_IPV6, MCAST_JOIN_GROUP, plain6);
	MUST(setsockopt(other, SOL_IP, IP_MULTICAST_IF, &via, sizeof(via)));
	MUST(setsockopt(six, SOL_IPV6, IPV6_MULTICAST_IF, &lo, sizeof(lo)));
	test_ready();
	test_wait();
	to.sin_port = any.sin_port;
	inet_pton(AF_INET, "239.1.2.3", &to.sin_addr);
	CHECK_EQ(sendto(other, "abc", 3, 0, (struct sockaddr *)&to, sizeof(to)), 3);
	CHECK_EQ(recv(fd, b, sizeof(b), 0), 3);
	CHECK_EQ(sources(fd, SOL_IP, plain, &mode), 0);
	CHECK_EQ(mode, MCAST_EXCLUDE);
	CHECK_EQ(sources(fd, SOL_IP, only, &mode), 1);
	CHECK_EQ(mode, MCAST_INCLUDE);
	CHECK_EQ(sources(fd, SOL_IP, never, &mode), 1);
	CHECK_EQ(mode, MCAST_EXCLUDE);
	leave(other, SOL_IP, plain, false);
	leave(fd, SOL_IP, plain, true);
	leave(fd, SOL_IP, only, true);
	leave(fd, SOL_IP, never, true);
	leave(six, SOL_IPV6, plain6, true);
	int index = 0;

	n = sizeof(index);
	MUST(getsockopt(six, SOL_IPV6, IPV6_MULTICAST_IF, &index, &n));
	CHECK_EQ(index, (int)if_nametoindex("lo"));
	test_pass();
}
