/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Netlink sockets: port, groups, options.  What waits to be read cannot be put back, for its sender is the
 * kernel, and the program would miss an answer: refused.  So are protocols that keep state of a socket in the
 * kernel.
 */
#include <errno.h>
#include <linux/netlink.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>

#include "base/util.h"
#include "state/files/files.h"
#include "state/sockets/socket.h"

#define SOL_NETLINK_ 270
#define GENL_CONTROL 16 /* the one group of generic netlink with the same number everywhere */
#define MAX_WORDS    1024

static bool netlink_match(const struct fd_facts *f)
{
	return f->domain == AF_NETLINK;
}

/* --- source --------------------------------------------------------------------------------------------- */

static int refuse_protocol(const struct fd_facts *f, struct error *e)
{
	static const int plain[] = {NETLINK_ROUTE,          NETLINK_USERSOCK, NETLINK_SOCK_DIAG,
				    NETLINK_XFRM,           NETLINK_SELINUX,  NETLINK_FIB_LOOKUP,
				    NETLINK_KOBJECT_UEVENT, NETLINK_GENERIC,  NETLINK_CRYPTO};
	const char *name = f->protocol == NETLINK_AUDIT       ? "audit"
			   : f->protocol == NETLINK_NETFILTER ? "netfilter"
			   : f->protocol == NETLINK_CONNECTOR ? "connector"
							      : "its protocol";

	for (size_t i = 0; i < ARRAY_SIZE(plain); i++)
		if (plain[i] == f->protocol)
			return 0;
	return error_say(
		e, ENOTSUP,
		"pid %d fd %d: netlink socket of protocol %d is not supported (%s keeps state of a socket in "
		"the kernel)",
		f->pid, f->fd, f->protocol, name);
}

static int capture_groups(const struct fd_facts *f, Ferry__NetlinkSocket *s, struct error *e)
{
	cleanup_free uint32_t *words = xcalloc(MAX_WORDS, sizeof(*words));
	socklen_t n = MAX_WORDS * sizeof(*words);

	if (getsockopt(f->copy, SOL_NETLINK_, NETLINK_LIST_MEMBERSHIPS, words, &n) < 0)
		return error_set(e, errno, "pid %d fd %d: reading the groups of its netlink socket", f->pid,
				 f->fd);
	n = MIN(n, MAX_WORDS * sizeof(*words));
	for (uint32_t i = 0; i < n * 8; i++) {
		if (!(words[i / 32] >> i % 32 & 1))
			continue;
		if (f->protocol == NETLINK_GENERIC && i + 1 != GENL_CONTROL)
			return error_say(e, ENOTSUP,
					 "pid %d fd %d: its netlink socket is in group %u of generic "
					 "netlink, a number "
					 "that means something else elsewhere",
					 f->pid, f->fd, i + 1);
		s->groups = xrealloc(s->groups, (s->n_groups + 1) * sizeof(*s->groups));
		s->groups[s->n_groups++] = i + 1;
	}
	return 0;
}

static int refuse_queued(const struct fd_facts *f, struct error *e)
{
	struct pollfd p = {.fd = f->copy, .events = POLLIN};

	/* An error that waits is an overrun that the program has not heard of. */
	if (poll(&p, 1, 0) <= 0 || !(p.revents & (POLLIN | POLLERR)))
		return 0;
	return error_say(
		e, EAGAIN,
		"pid %d fd %d: messages wait to be read from its netlink socket (protocol %d), which would "
		"take them away: try again",
		f->pid, f->fd, f->protocol);
}

static int netlink_capture(struct capture *c, struct fd_facts *f, FileDescription *m, struct error *e)
{
	struct sockaddr_nl local = {0}, peer = {0};
	socklen_t n = sizeof(local), peer_n = sizeof(peer);
	int r = refuse_protocol(f, e);

	(void)c;
	if (r >= 0)
		r = socket_capture(f, m, false, e);
	if (r < 0)
		return r;
	Ferry__NetlinkSocket *s = m->socket->netlink = xmalloc(sizeof(*s));

	ferry__netlink_socket__init(s);
	if (getsockname(f->copy, (struct sockaddr *)&local, &n) < 0)
		return error_set(e, errno, "pid %d fd %d: reading the address of its netlink socket", f->pid,
				 f->fd);
	s->port = local.nl_pid;
	if (getpeername(f->copy, (struct sockaddr *)&peer, &peer_n) == 0) {
		s->peer_port = peer.nl_pid;
		s->peer_groups = peer.nl_groups;
	}
	r = capture_groups(f, s, e);
	return r >= 0 && f->frozen ? refuse_queued(f, e) : r;
}

/* --- destination ---------------------------------------------------------------------------------------- */

static int make(const FileDescription *m, bool trial, int *ret_fd, struct error *e)
{
	if (!m->socket || !m->socket->netlink)
		return error_say(e, EPROTO, "the image says nothing of socket %llu",
				 (unsigned long long)m->id);
	const Ferry__NetlinkSocket *s = m->socket->netlink;
	struct sockaddr_nl local = {.nl_family = AF_NETLINK, .nl_pid = s->port},
			   peer = {.nl_family = AF_NETLINK,
				   .nl_pid = s->peer_port,
				   .nl_groups = s->peer_groups};
	cleanup_close int fd = socket_make(m, e);

	if (fd < 0)
		return fd;
	int r = socket_apply(fd, m, e);

	if (r >= 0 && s->port && bind(fd, (struct sockaddr *)&local, sizeof(local)) < 0)
		r = error_set(e, errno, "pid %d fd %d: binding its netlink socket (protocol %d) to port %u",
			      m->pid, m->fd, m->socket->protocol, s->port);
	if (r >= 0 && !trial)
		r = socket_finish(fd, m, e);
	for (size_t i = 0; i < s->n_groups && r >= 0 && !trial; i++)
		if (setsockopt(fd, SOL_NETLINK_, NETLINK_ADD_MEMBERSHIP, &s->groups[i],
			       sizeof(s->groups[i])) < 0)
			r = error_set(e, errno, "pid %d fd %d: joining group %u of netlink protocol %d",
				      m->pid, m->fd, s->groups[i], m->socket->protocol);
	if (r >= 0 && !trial && (s->peer_port || s->peer_groups) &&
	    connect(fd, (struct sockaddr *)&peer, sizeof(peer)) < 0)
		r = error_set(e, errno, "pid %d fd %d: connecting its netlink socket to port %u", m->pid,
			      m->fd, s->peer_port);
	if (r >= 0)
		*ret_fd = TAKE_FD(fd);
	return r;
}

static int netlink_check(struct rebuild *r, const FileDescription *m, struct error *e)
{
	cleanup_close int fd = -1;

	(void)r;
	return make(m, true, &fd, e);
}

static int netlink_open(struct rebuild *r, const FileDescription *m, int *ret_fd, struct error *e)
{
	(void)r;
	return make(m, false, ret_fd, e);
}

const struct fd_type fd_netlink = {
	.name = "netlink socket",
	.kind = FILE_KIND(NETLINK),
	.match = netlink_match,
	.capture = netlink_capture,
	.check = netlink_check,
	.open = netlink_open,
};
