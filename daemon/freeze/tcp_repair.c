/* SPDX-License-Identifier: Apache-2.0 */
#include "freeze/tcp_repair.h"

#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "base/util.h"
#include "procfs/procfs.h"

static bool is_marked(int fd)
{
	int v4 = 0, v6 = 0;
	socklen_t n = sizeof(v4), m = sizeof(v6);

	if (getsockopt(fd, SOL_IPV6, IPV6_TRANSPARENT, &v6, &m) == 0 && v6)
		return true;
	return getsockopt(fd, SOL_IP, IP_TRANSPARENT, &v4, &n) == 0 && v4;
}

/* Reads and writes fail from here on, and so does what the peer sends. */
static void break_off(int fd)
{
	struct sockaddr none = {.sa_family = AF_UNSPEC};

	connect(fd, &none, sizeof(none));
}

static bool end_one(int fd, bool rebuilt)
{
	/* A rebuilt one asks for the acknowledgements and windows that were dropped meanwhile. */
	int on = 0, off = rebuilt ? TCP_REPAIR_OFF : TCP_REPAIR_OFF_NO_WP, one = 1;
	socklen_t n = sizeof(on);

	if (getsockopt(fd, IPPROTO_TCP, TCP_REPAIR, &on, &n) < 0)
		return false;
	if (rebuilt && is_marked(fd)) {
		break_off(fd);
		return true;
	}
	if (!on || setsockopt(fd, IPPROTO_TCP, TCP_REPAIR, &off, sizeof(off)) < 0)
		return false;
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	return true;
}

static bool is_tcp(int fd)
{
	int protocol = 0;
	socklen_t n = sizeof(protocol);

	return getsockopt(fd, SOL_SOCKET, SO_PROTOCOL, &protocol, &n) == 0 && protocol == IPPROTO_TCP;
}

unsigned tcp_repair_end(pid_t pid, bool rebuilt)
{
	pid_t living = proc_living(pid);
	cleanup_close int pidfd = sys_pidfd_open(living, living == pid ? 0 : PIDFD_THREAD);
	cleanup_free int *fds = NULL;
	struct error ignore = ERROR_INIT;
	unsigned ended = 0;
	size_t n = 0;

	if (pidfd < 0 || proc_fds(living, &fds, &n, &ignore) < 0)
		return 0;
	for (size_t i = 0; i < n; i++) {
		cleanup_close int copy = sys_pidfd_getfd(pidfd, fds[i]);

		ended += copy >= 0 && is_tcp(copy) && end_one(copy, rebuilt);
	}
	return ended;
}
