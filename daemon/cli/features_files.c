/* SPDX-License-Identifier: Apache-2.0 */
/* Probes of what the kernel tells of files and sockets. */
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>

#include "base/util.h"
#include "cli/features.h"

#ifndef SO_BUF_LOCK
#define SO_BUF_LOCK 72
#endif
#ifndef SIOCUNIXFILE
#define SIOCUNIXFILE (0x89E0 + 0)
#endif

static int answer(char *why, size_t size, bool there, const char *what)
{
	int code = errno;

	if (there)
		return 0;
	snprintf(why, size, "%s: %s", what, strerror(code));
	return -code;
}

int probe_sk_unix_file(char *why, size_t size)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	cleanup_close int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	snprintf(a.sun_path, sizeof(a.sun_path), "/tmp/ferry-check-%d", getpid());
	unlink(a.sun_path);
	if (fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof(a)) < 0)
		return answer(why, size, false, "a unix socket in /tmp");
	cleanup_close int file = ioctl(fd, SIOCUNIXFILE);
	int r = answer(why, size, file >= 0, "SIOCUNIXFILE");

	unlink(a.sun_path);
	return r;
}

int probe_sockopt_buf_lock(char *why, size_t size)
{
	cleanup_close int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int v;
	socklen_t n = sizeof(v);

	return answer(why, size, getsockopt(fd, SOL_SOCKET, SO_BUF_LOCK, &v, &n) == 0, "SO_BUF_LOCK");
}

int probe_ipv6_freebind(char *why, size_t size)
{
	cleanup_close int fd = socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	int one = 1;

	return answer(why, size,
		      fd >= 0 && setsockopt(fd, SOL_IPV6, 78 /* IPV6_FREEBIND */, &one, sizeof(one)) == 0,
		      "IPV6_FREEBIND");
}

int probe_memfd_hugetlb(char *why, size_t size)
{
	cleanup_close int fd = memfd_create("ferry-check", MFD_CLOEXEC | MFD_HUGETLB);

	return answer(why, size, fd >= 0, "memfd_create with MFD_HUGETLB");
}

int probe_uffd(char *why, size_t size)
{
	cleanup_close int fd = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	struct uffdio_api api = {.api = UFFD_API};

	return answer(why, size, fd >= 0 && ioctl(fd, UFFDIO_API, &api) == 0, "userfaultfd");
}

int probe_fdinfo_lock(char *why, size_t size)
{
	cleanup_close int fd = memfd_create("ferry-check", MFD_CLOEXEC);
	struct flock l = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
	cleanup_free char *path = xasprintf("/proc/self/fdinfo/%d", fd), *text = NULL;

	if (fd < 0 || fcntl(fd, F_SETLK, &l) < 0 || read_file(path, &text) < 0)
		return answer(why, size, false, "a lock on a memfd");
	if (strstr(text, "lock:"))
		return 0;
	snprintf(why, size, "fdinfo does not show locks");
	return -ENOTSUP;
}
