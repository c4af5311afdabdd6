/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who is connected to whom: sock_diag(7).  A few sockets are asked for one by one; for many the whole table
 * is read once, because the kernel searches it from the start for every single question.
 */
#include <errno.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/sock_diag.h>
#include <linux/unix_diag.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>

#include "base/util.h"
#include "state/sockets/unix.h"

#define SINGLE_MAX 64

struct unix_capture {
	int netlink;
	unsigned asked;
	bool dumped;
	struct unix_info *infos;
	size_t n, cap;
	struct index_map by_ino;
	struct sockaddr_un name; /* of the last one read */
	socklen_t name_n;
};

static struct unix_capture *state_of(struct capture *c, struct error *e)
{
	struct unix_capture *u = c->sockets;

	if (u)
		return u;
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);

	if (fd < 0) {
		error_set(e, errno, "opening a sock_diag socket");
		return NULL;
	}
	u = c->sockets = xcalloc(1, sizeof(*u));
	u->netlink = fd;
	return u;
}

void unix_capture_free(struct capture *c)
{
	struct unix_capture *u = c->sockets;

	if (!u)
		return;
	close(u->netlink);
	for (size_t i = 0; i < u->n; i++)
		free(u->infos[i].waiting);
	free(u->infos);
	index_map_deinit(&u->by_ino);
	free(u);
	c->sockets = NULL;
}

static void take_attribute(struct unix_capture *u, struct unix_info *i, const struct rtattr *a)
{
	const void *data = RTA_DATA(a);
	size_t n = RTA_PAYLOAD(a);

	switch (a->rta_type) {
	case UNIX_DIAG_PEER:
		i->has_peer = true;
		i->peer = n >= 4 ? *(const uint32_t *)data : 0;
		break;
	case UNIX_DIAG_SHUTDOWN:
		i->shutdown = n >= 1 ? *(const uint8_t *)data : 0;
		break;
	case UNIX_DIAG_RQLEN:
		i->backlog = n >= sizeof(struct unix_diag_rqlen)
				     ? ((const struct unix_diag_rqlen *)data)->udiag_wqueue
				     : 0;
		break;
	case UNIX_DIAG_ICONS:
		i->waiting = xmemdup(data, n);
		i->n_waiting = n / 4;
		break;
	case UNIX_DIAG_NAME:
		n = MIN(n, sizeof(u->name.sun_path));
		u->name.sun_family = AF_UNIX;
		memcpy(u->name.sun_path, data, n);
		u->name_n = offsetof(struct sockaddr_un, sun_path) + n;
		break;
	}
}

static void take_message(struct unix_capture *u, const struct nlmsghdr *h)
{
	const struct unix_diag_msg *m = NLMSG_DATA(h);
	struct unix_info i = {.ino = m->udiag_ino, .state = m->udiag_state};
	int left = (int)h->nlmsg_len - (int)NLMSG_LENGTH(sizeof(*m));

	u->name_n = 0;
	for (const struct rtattr *a = (const struct rtattr *)(m + 1); RTA_OK(a, left); a = RTA_NEXT(a, left))
		take_attribute(u, &i, a);
	uint32_t *slot = index_map_at(&u->by_ino, i.ino, 0);

	/* Not yet accepted ones have no inode. A second one of the same number was asked for again. */
	if (!i.ino || *slot) {
		free(i.waiting);
		return;
	}
	FILES_GROW(u->infos, u->n, u->cap);
	u->infos[u->n++] = i;
	*slot = u->n;
}

/* @ino 0: all of them. */
static int ask(struct unix_capture *u, uint32_t ino, struct error *e)
{
	struct {
		struct nlmsghdr h;
		struct unix_diag_req r;
	} request = {
		.h = {.nlmsg_len = sizeof(request),
		      .nlmsg_type = SOCK_DIAG_BY_FAMILY,
		      .nlmsg_flags = NLM_F_REQUEST},
		.r = {.sdiag_family = AF_UNIX,
		      .udiag_states = ~0u,
		      .udiag_ino = ino,
		      .udiag_show = UDIAG_SHOW_PEER | UDIAG_SHOW_ICONS | UDIAG_SHOW_RQLEN | UDIAG_SHOW_NAME,
		      .udiag_cookie = {~0u, ~0u}},
	};
	static _Alignas(struct nlmsghdr) uint8_t buffer[65536];

	if (!ino)
		request.h.nlmsg_flags |= NLM_F_DUMP;
	if (send(u->netlink, &request, sizeof(request), 0) < 0)
		return error_set(e, errno, "asking sock_diag");
	for (;;) {
		ssize_t n = recv(u->netlink, buffer, sizeof(buffer), 0);

		if (n < 0 && errno == EINTR && !job_aborted())
			continue;
		if (n < 0)
			return error_set(e, errno, "reading from sock_diag");
		for (const struct nlmsghdr *h = (const struct nlmsghdr *)buffer; NLMSG_OK(h, (size_t)n);
		     h = NLMSG_NEXT(h, n)) {
			if (h->nlmsg_type == NLMSG_DONE)
				return 0;
			if (h->nlmsg_type == NLMSG_ERROR)
				return ((const struct nlmsgerr *)NLMSG_DATA(h))->error;
			take_message(u, h);
			if (ino)
				return 0;
		}
	}
}

int unix_diag_find(struct capture *c, uint64_t ino, const struct unix_info **ret, struct error *e)
{
	struct unix_capture *u = state_of(c, e);

	if (!u)
		return -e->code;
	uint32_t at = index_map_find(&u->by_ino, ino, 0);

	if (!at && !u->dumped) {
		u->dumped = ++u->asked > SINGLE_MAX;
		int r = ask(u, u->dumped ? 0 : (uint32_t)ino, e);

		if (r < 0)
			return r;
		at = index_map_find(&u->by_ino, ino, 0);
	}
	if (!at)
		return -ENOENT;
	*ret = &u->infos[at - 1];
	return 0;
}

int unix_diag_name(struct capture *c, uint64_t ino, struct sockaddr_un *ret, socklen_t *ret_n,
		   struct error *e)
{
	struct unix_capture *u = state_of(c, e);

	if (!u)
		return -e->code;
	u->name_n = 0;
	int r = ask(u, ino, e);

	*ret = u->name;
	*ret_n = r < 0 ? 0 : u->name_n;
	return error_is(e) ? r : 0;
}
