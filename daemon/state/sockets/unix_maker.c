/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SO_PEERCRED shows who called socketpair(2), connect(2) or listen(2): process, effective user and group, for
 * ever.  So these calls are made by the skeleton of that process, with that user, on sockets that go to and
 * fro between it and the host.  A process that is not in the tree any more is stood in for by the host.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include "base/util.h"
#include "state/fetch.h"
#include "state/sockets/unix.h"

#define KEEP_ID    ((uint64_t)-1)
#define FILE_PLACE 1000 /* number of a helper descriptor in the skeleton, whose table is its own by now */

struct unix_maker unix_maker_of(struct rebuild *r, size_t i)
{
	const Ferry__UnixSocket *u = unix_at(r, i);
	struct process *p = r->run_in && u->peer_pid > 0 ? tree_find(r->tree, u->peer_pid) : NULL;

	if (!p || p->state == PROCESS_ZOMBIE)
		return (struct unix_maker){0};
	return (struct unix_maker){p, u->peer_uid, u->peer_gid};
}

/* Effective ids only: the way back stays open. */
static void become(const struct unix_maker *k, struct batch *b)
{
	if (!k->uid && !k->gid)
		return;
	batch_call(b, "take the maker's group", SYS_setresgid, ARG(KEEP_ID), ARG(k->gid), ARG(KEEP_ID));
	batch_call(b, "take the maker's user", SYS_setresuid, ARG(KEEP_ID), ARG(k->uid), ARG(KEEP_ID));
}

static void become_root(const struct unix_maker *k, struct batch *b)
{
	if (!k->uid && !k->gid)
		return;
	batch_call(b, "be root again", SYS_setresuid, ARG(KEEP_ID), ARG(0), ARG(KEEP_ID));
	batch_call(b, "be root again", SYS_setresgid, ARG(KEEP_ID), ARG(0), ARG(KEEP_ID));
}

static int take_over(struct process *p, const int *theirs, int (*ends)[2], size_t n, struct error *e)
{
	cleanup_close int own = p->pidfd >= 0 ? -1 : sys_pidfd_open(p->pid, 0);

	for (size_t i = 0; i < 2 * n; i++) {
		int fd = sys_pidfd_getfd(p->pidfd >= 0 ? p->pidfd : own, theirs[i]);

		if (fd < 0) {
			while (i-- > 0)
				close(ends[i / 2][i % 2]);
			return error_set(e, -fd, "pid %d: taking a socket over", p->pid);
		}
		ends[i / 2][i % 2] = fd;
	}
	return 0;
}

static int host_socketpairs(const int *types, int (*ends)[2], size_t n, struct error *e)
{
	for (size_t i = 0; i < n; i++)
		if (socketpair(AF_UNIX, types[i], 0, ends[i]) < 0) {
			int err = errno;

			for (; i-- > 0; close(ends[i][0]))
				close(ends[i][1]);
			return error_set(e, err, "making a socket pair");
		}
	return 0;
}

int unix_maker_socketpairs(struct rebuild *r, const struct unix_maker *k, const int *types, int (*ends)[2],
			   size_t n, struct error *e)
{
	struct batch b = BATCH_INIT, end = BATCH_INIT;
	int theirs[2 * UNIX_MAKER_PAIRS];

	if (!k->p)
		return host_socketpairs(types, ends, n, e);
	size_t at = batch_reserve(&b, sizeof(theirs));

	become(k, &b);
	for (size_t i = 0; i < n; i++)
		batch_call(&b, "make a socket pair", SYS_socketpair, ARG(AF_UNIX), ARG(types[i]), ARG(0),
			   ARG_DATA(at + i * sizeof(*ends)));
	become_root(k, &b);
	int ret = r->run_in(r, k->p, &b, e);

	if (ret >= 0) {
		memcpy(theirs, batch_data(&b, at), n * sizeof(*ends));
		ret = take_over(k->p, theirs, ends, n, e);
	}
	for (size_t i = 0; ret >= 0 && i < 2 * n; i++)
		batch_call(&end, "close a socket", SYS_close, ARG(theirs[i]));
	if (ret >= 0) {
		ret = r->run_in(r, k->p, &end, e);
		for (size_t i = 0; ret < 0 && i < 2 * n; i++)
			close(ends[i / 2][i % 2]);
	}
	batch_deinit(&b);
	batch_deinit(&end);
	return ret;
}

/* What has been asked for is done, as root again, and the maker's own descriptor of the socket closed. */
static int run(struct rebuild *r, const struct unix_maker *k, const FileDescription *m, struct batch *b,
	       unsigned theirs, struct error *e)
{
	become_root(k, b);
	batch_call(b, "close a socket", SYS_close, ARG_RESULT(theirs));
	rebuild_fetch_end(b);
	int ret = r->run_in(r, k->p, b, e);

	batch_deinit(b);
	return ret < 0 ? error_prefix(e, "pid %d fd %d", m->pid, m->fd) : 0;
}

int unix_maker_listen(struct rebuild *r, const struct unix_maker *k, const FileDescription *m, int fd,
		      int backlog, struct error *e)
{
	struct batch b = BATCH_INIT;

	if (!k->p)
		return listen(fd, backlog) < 0 ? unix_fail(m, "listen", e) : 0;
	unsigned theirs = rebuild_fetch_fd(&b, fd);

	become(k, &b);
	batch_call(&b, "listen", SYS_listen, ARG_RESULT(theirs), ARG(backlog));
	return run(r, k, m, &b, theirs, e);
}

int unix_maker_connect(struct rebuild *r, const struct unix_maker *k, const FileDescription *m, int fd,
		       int bound, struct error *e)
{
	struct batch b = BATCH_INIT;
	struct sockaddr_un a;
	socklen_t n;
	cleanup_close int file = -1;

	if (!k->p)
		return unix_connect(m, fd, bound, e);
	int ret = unix_address_of(bound, &a, &n, &file, e);

	if (ret < 0)
		return ret;
	unsigned theirs = rebuild_fetch_fd(&b, fd);

	if (file >= 0) { /* the address names a descriptor by its number, and must be known before */
		unsigned theirs_file = rebuild_fetch_fd(&b, file);

		batch_call(&b, "place the file of a socket", SYS_dup3, ARG_RESULT(theirs_file),
			   ARG(FILE_PLACE), ARG(O_CLOEXEC));
		batch_call(&b, "close the file of a socket", SYS_close, ARG_RESULT(theirs_file));
		snprintf(a.sun_path, sizeof(a.sun_path), "/proc/self/fd/%d", FILE_PLACE);
	}
	become(k, &b);
	batch_call(&b, "connect", SYS_connect, ARG_RESULT(theirs), ARG_PUT(&b, &a, sizeof(a)), ARG(n));
	if (file >= 0)
		batch_call(&b, "close the file of a socket", SYS_close, ARG(FILE_PLACE));
	return run(r, k, m, &b, theirs, e);
}

int unix_maker_connect_to(struct rebuild *r, const struct unix_maker *k, const FileDescription *m, int fd,
			  const struct sockaddr_un *a, socklen_t n, struct error *e)
{
	struct batch b = BATCH_INIT;

	if (!k->p)
		return connect(fd, (const struct sockaddr *)a, n) < 0
			       ? unix_fail(m, "connecting its unix socket to one outside the tree", e)
			       : 0;
	unsigned theirs = rebuild_fetch_fd(&b, fd);

	become(k, &b);
	batch_call(&b, "connect to one outside the tree", SYS_connect, ARG_RESULT(theirs),
		   ARG_PUT(&b, a, sizeof(*a)), ARG(n));
	return run(r, k, m, &b, theirs, e);
}
