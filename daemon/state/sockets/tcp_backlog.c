/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Connections that wait to be accepted when the tree has just been stopped.  They cannot be taken along: no
 * call puts a connection into a listener's queue.  But the program will have accepted them a moment later.
 * So requests for more are held back and kept, the tree runs on until the queues are empty, which our copies
 * of the listeners tell, and is stopped again.
 */
#include <errno.h>

#include "base/util.h"
#include "state/sockets/tcp_source.h"

static bool has_backlog(int fd)
{
	struct tcp_info info = {0};
	socklen_t n = sizeof(info);

	return tcp_get(fd, SOL_SOCKET, SO_ACCEPTCONN) == 1 &&
	       tcp_get(fd, SOL_SOCKET, SO_PROTOCOL) == IPPROTO_TCP &&
	       getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &n) == 0 && info.tcpi_unacked;
}

int tcp_find_backlog(struct capture *c, struct awaited *ret, struct error *e)
{
	struct files_capture *f = files_capture_of(c);
	int r = 0;

	*ret = (struct awaited){0};
	if (!c->options || !c->options->tcp_established || c->options->tcp_close)
		return 0;
	for (uint32_t i = 0; i < f->n && r >= 0; i++) {
		const struct ofd *o = &f->ofds[i];

		if (!S_ISSOCK(o->st.st_mode) || o->flags & O_PATH || o->extra >= 0)
			continue;
		cleanup_close int copy = files_copy_of(c, o, e);

		r = copy < 0 ? copy : 0;
		if (r < 0 || !has_backlog(copy))
			continue;
		r = tcp_hold_listener(c, o, copy, e);
		awaited_add(ret, TAKE_FD(copy));
	}
	if (r < 0)
		awaited_deinit(ret);
	return r;
}

void tcp_wait_accepted(const struct awaited *b, uint64_t until)
{
	awaited_wait(b, has_backlog, until);
}
