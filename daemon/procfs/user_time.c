/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a thread has spent in user mode, as the kernel's tick counts it: each tick belongs to what the tick
 * found, so that a count that grew says that the thread was in user mode meanwhile. (The times in
 * /proc/PID/stat say no such thing: they are the sum of both, divided by estimate.)
 */
#include <errno.h>
#include <linux/genetlink.h>
#include <linux/taskstats.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/util.h"
#include "procfs/procfs.h"

struct request {
	struct nlmsghdr h;
	struct genlmsghdr g;
	char attrs[64];
};

union answer {
	struct nlmsghdr h;
	char bytes[4096];
};

static const struct nlattr *find(const void *from, size_t length, int type)
{
	const char *p = from;

	while (length >= NLA_HDRLEN) {
		const struct nlattr *a = (const void *)p;
		size_t n = NLA_ALIGN(a->nla_len);

		if (a->nla_len < NLA_HDRLEN || a->nla_len > length)
			return NULL;
		if ((a->nla_type & NLA_TYPE_MASK) == type)
			return a;
		if (n > length)
			return NULL;
		p += n;
		length -= n;
	}
	return NULL;
}

static const void *data_of(const struct nlattr *a, size_t *length)
{
	*length = a->nla_len - NLA_HDRLEN;
	return (const char *)a + NLA_HDRLEN;
}

/* Ask with one attribute; *@ret are the attributes of the answer. 0 or -errno. */
static int ask(int fd, int family, int command, int type, const void *data, size_t length, union answer *a,
	       const void **ret, size_t *ret_length)
{
	struct request q = {.h = {.nlmsg_type = (uint16_t)family, .nlmsg_flags = NLM_F_REQUEST},
			    .g = {.cmd = (uint8_t)command, .version = 1}};
	struct nlattr attr = {.nla_len = (uint16_t)(NLA_HDRLEN + length), .nla_type = (uint16_t)type};

	memcpy(q.attrs, &attr, sizeof(attr));
	memcpy(q.attrs + NLA_HDRLEN, data, length);
	q.h.nlmsg_len = (uint32_t)(NLMSG_LENGTH(GENL_HDRLEN) + NLA_ALIGN(attr.nla_len));
	while (recv(fd, a, sizeof(*a), MSG_DONTWAIT) > 0) /* of a call that was cut short */
		;
	if (send(fd, &q, q.h.nlmsg_len, 0) < 0)
		return -errno;
	ssize_t n = recv(fd, a, sizeof(*a), MSG_DONTWAIT); /* the kernel has answered before send returns */

	if (n < 0)
		return -errno;
	if (!NLMSG_OK(&a->h, (size_t)n))
		return -EPROTO;
	if (a->h.nlmsg_type == NLMSG_ERROR)
		return ((struct nlmsgerr *)NLMSG_DATA(&a->h))->error ?: -EPROTO;
	if (a->h.nlmsg_type != family || a->h.nlmsg_len < NLMSG_LENGTH(GENL_HDRLEN))
		return -EPROTO;
	*ret = (char *)NLMSG_DATA(&a->h) + GENL_HDRLEN;
	*ret_length = a->h.nlmsg_len - NLMSG_LENGTH(GENL_HDRLEN);
	return 0;
}

int user_times_open(struct user_times *u)
{
	union answer a;
	const void *attrs, *data;
	size_t n;

	*u = (struct user_times){.fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_GENERIC)};
	if (u->fd < 0)
		return -errno;
	int r = ask(u->fd, GENL_ID_CTRL, CTRL_CMD_GETFAMILY, CTRL_ATTR_FAMILY_NAME, TASKSTATS_GENL_NAME,
		    sizeof(TASKSTATS_GENL_NAME), &a, &attrs, &n);
	const struct nlattr *id = r == 0 ? find(attrs, n, CTRL_ATTR_FAMILY_ID) : NULL;
	uint16_t family = 0;

	if (id && (data = data_of(id, &n)) && n >= sizeof(family))
		memcpy(&family, data, sizeof(family));
	u->family = family;
	if (family)
		return 0;
	user_times_close(u);
	return r < 0 ? r : -ENOENT;
}

void user_times_close(struct user_times *u)
{
	if (u->fd >= 0)
		close(u->fd);
	u->fd = -1;
}

int user_time(const struct user_times *u, pid_t tid, uint64_t *ret)
{
	union answer a;
	const void *attrs;
	uint32_t id = (uint32_t)tid;
	struct taskstats stats;
	size_t n;

	if (u->fd < 0)
		return -ENOENT;
	int r = ask(u->fd, u->family, TASKSTATS_CMD_GET, TASKSTATS_CMD_ATTR_PID, &id, sizeof(id), &a, &attrs,
		    &n);
	const struct nlattr *both = r == 0 ? find(attrs, n, TASKSTATS_TYPE_AGGR_PID) : NULL;
	const struct nlattr *one = NULL;

	if (both) {
		attrs = data_of(both, &n);
		one = find(attrs, n, TASKSTATS_TYPE_STATS);
	}
	if (!one)
		return r < 0 ? r : -EPROTO;
	attrs = data_of(one, &n);
	if (n < offsetof(struct taskstats, ac_utime) + sizeof(stats.ac_utime))
		return -EPROTO;
	memcpy(&stats, attrs, MIN(n, sizeof(stats)));
	*ret = stats.ac_utime;
	return 0;
}
