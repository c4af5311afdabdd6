/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Names of unix sockets at the destination.
 *
 * A path is bound as text, relative to the directory the program was in, and the kernel makes the file, so
 * nothing may be there.  What is there is the dead file of the very socket (same device and inode: image and
 * target share a file system), which is set aside until the tree runs; anything else is in the way and an
 * error.  A socket whose file was deleted is bound and its file removed again, with whatever has the name now
 * kept.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <stddef.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "base/util.h"
#include "state/sockets/unix.h"

#ifndef SIOCUNIXFILE
#define SIOCUNIXFILE (SIOCPROTOPRIVATE + 0)
#endif

static int address_from(const ProtobufCBinaryData *name, struct sockaddr_un *ret, socklen_t *ret_n)
{
	memset(ret, 0, sizeof(*ret));
	if (name->len > sizeof(ret->sun_path) || !name->len)
		return -EINVAL;
	ret->sun_family = AF_UNIX;
	memcpy(ret->sun_path, name->data, name->len);
	*ret_n = offsetof(struct sockaddr_un, sun_path) + name->len;
	/* With its NUL, unless it fills the room. */
	if (ret->sun_path[0] && name->len < sizeof(ret->sun_path))
		++*ret_n;
	return 0;
}

static const char *text_of(const struct sockaddr_un *a, socklen_t n, char *buffer, size_t size)
{
	size_t length = n - offsetof(struct sockaddr_un, sun_path);

	if (a->sun_path[0])
		snprintf(buffer, size, "%.*s", (int)length, a->sun_path);
	else
		snprintf(buffer, size, "@%.*s", (int)length - 1, a->sun_path + 1);
	return buffer;
}

/* Bind from directory @cwd; "": where we are. */
static int bind_from(int fd, const struct sockaddr_un *a, socklen_t n, const char *cwd)
{
	cleanup_close int here = -1;

	if (!a->sun_path[0] || a->sun_path[0] == '/' || !cwd[0])
		return bind(fd, (const struct sockaddr *)a, n) < 0 ? -errno : 0;
	here = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (here < 0 || chdir(cwd) < 0)
		return -errno;
	int r = bind(fd, (const struct sockaddr *)a, n) < 0 ? -errno : 0;

	return fchdir(here) < 0 && r == 0 ? -errno : r;
}

/* Bind, and remove the file: what has the name meanwhile is put aside and back. */
static int bind_without_file(int fd, const struct sockaddr_un *a, socklen_t n, const char *cwd,
			     const char *path)
{
	cleanup_free char *aside = xasprintf("%s.ferry-%d", path, getpid());
	bool moved = rename(path, aside) == 0;
	int r = bind_from(fd, a, n, cwd);

	if (r >= 0)
		unlink(path);
	if (moved && rename(aside, path) < 0 && r >= 0)
		r = -errno;
	return r;
}

static int bind_with_file(struct rebuild *r, const FileDescription *m, int fd, const struct sockaddr_un *a,
			  socklen_t n, const char *path, struct error *e)
{
	const Ferry__UnixSocket *u = m->socket->unix_socket;
	struct stat st;

	if (lstat(path, &st) == 0 && S_ISSOCK(st.st_mode) && st.st_dev == u->name_dev &&
	    st.st_ino == u->name_ino) {
		int ret = files_move_away(r, path, e);

		if (ret < 0)
			return ret;
	}
	int ret = bind_from(fd, a, n, u->cwd);

	if (ret < 0)
		return ret;
	/* The umask cuts the mode that bind gives. */
	if (chmod(path, u->mode & 07777) < 0 || lchown(path, u->uid, u->gid) < 0)
		return error_set(e, errno, "pid %d fd %d: setting mode and owner of %s", m->pid, m->fd, path);
	return 0;
}

int unix_bind(struct rebuild *r, const FileDescription *m, int fd, struct error *e)
{
	const Ferry__UnixSocket *u = m->socket->unix_socket;
	struct sockaddr_un a;
	socklen_t n = 0;
	char text[256];
	int ret = address_from(&u->name, &a, &n);

	if (ret < 0)
		return error_say(e, EPROTO,
				 "pid %d fd %d: the image has a name of %zu bytes for its unix socket",
				 m->pid, m->fd, u->name.len);
	/* The text as the program gave it, the path as it is from here. */
	cleanup_free char *path = a.sun_path[0] == '/'
					  ? xasprintf("%.*s", (int)u->name.len, a.sun_path)
					  : xasprintf("%s/%.*s", u->cwd, (int)u->name.len, a.sun_path);

	if (!a.sun_path[0])
		ret = bind_from(fd, &a, n, "");
	else if (u->deleted)
		ret = bind_without_file(fd, &a, n, u->cwd, path);
	else
		ret = bind_with_file(r, m, fd, &a, n, path, e);
	return ret < 0 ? error_set(e, -ret, "pid %d fd %d: binding its unix socket to %s", m->pid, m->fd,
				   text_of(&a, n, text, sizeof(text)))
		       : 0;
}

int unix_bind_sender(struct rebuild *r, const FileDescription *m, int fd, const ProtobufCBinaryData *name,
		     struct error *e)
{
	struct sockaddr_un a;
	socklen_t n = 0;
	char text[256];
	int ret = address_from(name, &a, &n);

	(void)r;
	if (ret >= 0 && a.sun_path[0]) {
		const char *cwd = m->socket->unix_socket->cwd;
		cleanup_free char *path = a.sun_path[0] == '/'
						  ? xasprintf("%.*s", (int)name->len, a.sun_path)
						  : xasprintf("%s/%.*s", cwd, (int)name->len, a.sun_path);

		ret = bind_without_file(fd, &a, n, cwd, path);
	} else if (ret >= 0) {
		ret = bind_from(fd, &a, n, "");
	}
	return ret < 0 ? error_set(e, -ret,
				   "pid %d fd %d: binding the sender of a message in its socket to %s",
				   m->pid, m->fd, text_of(&a, n, text, sizeof(text)))
		       : 0;
}

int unix_address_of(int fd, struct sockaddr_un *ret, socklen_t *ret_n, int *ret_file, struct error *e)
{
	*ret_file = -1;
	*ret_n = sizeof(*ret);
	memset(ret, 0, sizeof(*ret));
	if (getsockname(fd, (struct sockaddr *)ret, ret_n) < 0)
		return error_set(e, errno, "reading the name of a unix socket");
	if (*ret_n <= offsetof(struct sockaddr_un, sun_path))
		return error_say(e, EDESTADDRREQ, "a unix socket that others refer to has no name");
	if (!ret->sun_path[0])
		return 0;
	*ret_file = ioctl(fd, SIOCUNIXFILE);
	if (*ret_file < 0)
		return error_set(e, errno, "finding the file of unix socket %s", ret->sun_path);
	snprintf(ret->sun_path, sizeof(ret->sun_path), "/proc/self/fd/%d", *ret_file);
	*ret_n = sizeof(*ret);
	return 0;
}
