/* SPDX-License-Identifier: Apache-2.0 */
#include "migrate/lane.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "base/util.h"

char *lane_path(const char *dir, const char *uuid)
{
	return xasprintf("%s/journal/in/%s.sock", dir, uuid);
}

char *lane_state_path(const char *dir, const char *uuid)
{
	return xasprintf("%s/journal/in/%s.pages", dir, uuid);
}

/* A path may be longer than an address holds: by its directory. */
static int address(const char *path, struct sockaddr_un *ret, int *ret_dir)
{
	cleanup_free char *dir = xstrdup(path);
	char *slash = strrchr(dir, '/');

	*slash = 0;
	*ret = (struct sockaddr_un){.sun_family = AF_UNIX};
	*ret_dir = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (*ret_dir < 0)
		return -errno;
	int n = snprintf(ret->sun_path, sizeof(ret->sun_path), "/proc/self/fd/%d/%s", *ret_dir, slash + 1);

	return n < (int)sizeof(ret->sun_path) ? 0 : -ENAMETOOLONG;
}

int lane_listen(const char *path, struct error *e)
{
	struct sockaddr_un a;
	cleanup_close int sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), dir = -1;
	int r = address(path, &a, &dir);

	unlink(path); /* of a process that was killed */
	mode_t old = umask(0177);

	if (r >= 0 && (sock < 0 || bind(sock, (struct sockaddr *)&a, sizeof(a)) < 0 || listen(sock, 8) < 0))
		r = -errno;
	umask(old);
	return r < 0 ? error_set(e, -r, "listen at %s", path) : TAKE_FD(sock);
}

int lane_connect(const char *path)
{
	struct sockaddr_un a;
	cleanup_close int to = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0), dir = -1;
	int r = to < 0 ? -errno : address(path, &a, &dir);

	if (r >= 0 && connect(to, (struct sockaddr *)&a, sizeof(a)) < 0)
		r = -errno;
	return r < 0 ? r : TAKE_FD(to);
}

int lane_give(const char *path, int sock, int lane, const void *token, size_t size)
{
	cleanup_close int to = lane_connect(path);
	char number = (char)lane;
	union {
		struct cmsghdr h;
		char bytes[CMSG_SPACE(sizeof(int))];
	} control = {0};
	struct iovec v[] = {{&number, 1}, {(void *)token, size}};
	struct msghdr m = {
		.msg_iov = v, .msg_iovlen = 2, .msg_control = &control, .msg_controllen = sizeof(control)};
	int r = MIN(to, 0);

	control.h.cmsg_level = SOL_SOCKET;
	control.h.cmsg_type = SCM_RIGHTS;
	control.h.cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(&control.h), &sock, sizeof(int));
	if (r >= 0 && sendmsg(to, &m, MSG_NOSIGNAL) != (ssize_t)size + 1)
		r = -errno;
	return r;
}

int lane_take(int listener, int *ret_lane, void *token, size_t size)
{
	cleanup_close int from = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	struct timeval soon = {.tv_usec = 100000};
	char number, got[LANE_TOKEN_MAX + 1];
	union {
		struct cmsghdr h;
		char bytes[CMSG_SPACE(sizeof(int))];
	} control = {0};
	struct iovec v[] = {{&number, 1}, {got, sizeof(got)}};
	struct msghdr m = {
		.msg_iov = v, .msg_iovlen = 2, .msg_control = &control, .msg_controllen = sizeof(control)};
	int sock;

	if (from < 0)
		return -EAGAIN;
	setsockopt(from, SOL_SOCKET, SO_RCVTIMEO, &soon, sizeof(soon));
	ssize_t n = recvmsg(from, &m, MSG_CMSG_CLOEXEC);

	if (n < 1 || !CMSG_FIRSTHDR(&m))
		return -EAGAIN;
	memcpy(&sock, CMSG_DATA(CMSG_FIRSTHDR(&m)), sizeof(int));
	if ((size_t)n != size + 1) {
		close(sock);
		return -EAGAIN;
	}
	if (size)
		memcpy(token, got, size);
	*ret_lane = number;
	return sock;
}
