/* SPDX-License-Identifier: Apache-2.0 */
#include "service/rundir.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>

#include "base/util.h"

#define OVERFLOW_UID 65534 /* what the kernel shows for users that have no number here: not one of them */

const char *rundir_path(void)
{
	const char *dir = getenv("FERRY_RUN_DIR");

	return dir && *dir ? dir : "/run/ferry";
}

char *rundir_job_path(pid_t target, const char *verb)
{
	return xasprintf("%s/jobs/%d-%s.sock", rundir_path(), target, verb);
}

char *rundir_keeper_path(pid_t target)
{
	return xasprintf("%s/keepers/%d.sock", rundir_path(), target);
}

/* A directory of somebody else, or open to others, would let them answer in our place. */
static int make_dir(const char *path, struct error *e)
{
	struct stat st;

	if (mkdir(path, 0700) < 0 && errno != EEXIST)
		return error_set(e, errno, "cannot create the run directory %s", path);
	if (stat(path, &st) < 0)
		return error_set(e, errno, "cannot look at the run directory %s", path);
	if (!S_ISDIR(st.st_mode) || st.st_uid != geteuid())
		return error_say(e, EPERM,
				 "the run directory %s is not a directory of user %u (see FERRY_RUN_DIR)",
				 path, geteuid());
	/* A group may pass through to the control socket (rundir_let_group). */
	if ((st.st_mode & 067) && chmod(path, 0700) < 0)
		return error_set(e, errno, "cannot close the run directory %s to others", path);
	return 0;
}

int rundir_lock(int *ret_fd, struct error *e)
{
	static const char *const subdirs[] = {"jobs", "keepers"};
	int r = make_dir(rundir_path(), e);

	for (size_t i = 0; i < ARRAY_SIZE(subdirs) && r == 0; i++) {
		cleanup_free char *path = xasprintf("%s/%s", rundir_path(), subdirs[i]);

		r = make_dir(path, e);
	}
	if (r < 0)
		return r;
	cleanup_close int fd = open(rundir_path(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0 || flock(fd, LOCK_EX) < 0)
		return error_set(e, errno, "cannot lock the run directory %s", rundir_path());
	*ret_fd = TAKE_FD(fd);
	return 0;
}

static int address(const char *path, struct sockaddr_un *ret)
{
	*ret = (struct sockaddr_un){.sun_family = AF_UNIX};
	if (strlen(path) >= sizeof(ret->sun_path))
		return -ENAMETOOLONG;
	strcpy(ret->sun_path, path);
	return 0;
}

int rundir_connect(const char *path, bool timeout)
{
	struct sockaddr_un a;
	int r = address(path, &a);

	if (r < 0)
		return r;
	cleanup_close int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	struct timeval five = {.tv_sec = 5};

	if (fd < 0)
		return -errno;
	if (timeout) {
		setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &five, sizeof(five));
		setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &five, sizeof(five));
	}
	if (connect(fd, (struct sockaddr *)&a, sizeof(a)) < 0) {
		r = -errno;
		if (r == -ECONNREFUSED)
			unlink(path);
		return r;
	}
	return TAKE_FD(fd);
}

int rundir_connect_now(const char *path)
{
	struct sockaddr_un a;
	cleanup_close int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0 || address(path, &a) < 0 || connect(fd, (struct sockaddr *)&a, sizeof(a)) < 0)
		return -1;
	return TAKE_FD(fd);
}

int rundir_listen(const char *path, struct error *e)
{
	struct sockaddr_un a;
	int r = address(path, &a);

	if (r < 0)
		return error_set(e, -r, "the socket path %s cannot be used", path);
	cleanup_close int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0)
		return error_set(e, errno, "cannot make a unix socket");
	int other = rundir_connect(path, true); /* sweeps a stale one */

	if (other >= 0) {
		close(other);
		return error_set(e, EADDRINUSE, "cannot listen at %s", path);
	}
	mode_t old = umask(0177);

	r = bind(fd, (struct sockaddr *)&a, sizeof(a)) < 0 ? -errno : 0;
	umask(old);
	if (r == 0 && listen(fd, 8) < 0) {
		r = -errno;
		unlink(path);
	}
	return r < 0 ? error_set(e, -r, "cannot listen at %s", path) : TAKE_FD(fd);
}

int rundir_each(const char *subdir, pid_t target, int (*each)(void *ctx, const char *path, int sock),
		void *ctx)
{
	cleanup_free char *dirname = xasprintf("%s/%s", rundir_path(), subdir);
	cleanup_closedir DIR *d = opendir(dirname);
	struct dirent *entry;

	while (d && (entry = readdir(d))) {
		char *end;
		long pid = strtol(entry->d_name, &end, 10);

		if (end == entry->d_name || (target && pid != target))
			continue;
		cleanup_free char *path = xasprintf("%s/%s", dirname, entry->d_name);
		cleanup_close int sock = rundir_connect(path, true);

		if (sock < 0)
			continue;
		int r = each(ctx, path, sock);

		if (r)
			return r;
	}
	return 0;
}

static int yes(void *ctx, const char *path, int sock)
{
	(void)ctx;
	(void)path;
	(void)sock;
	return 1;
}

bool rundir_has_job(pid_t target)
{
	return target && rundir_each("jobs", target, yes, NULL) == 1;
}

enum control_right control_right(int sock, int64_t gid, uid_t *ret_uid)
{
	struct ucred who;
	gid_t groups[1024];
	socklen_t len = sizeof(who), size = sizeof(groups);

	if (getsockopt(sock, SOL_SOCKET, SO_PEERCRED, &who, &len) < 0)
		return CONTROL_NONE;
	*ret_uid = who.uid;
	if (who.uid == 0 || who.uid == geteuid())
		return CONTROL_ALL;
	if (gid < 0 || who.uid == OVERFLOW_UID)
		return CONTROL_NONE;
	if (who.gid == (gid_t)gid)
		return CONTROL_OWN;
	if (getsockopt(sock, SOL_SOCKET, SO_PEERGROUPS, groups, &size) < 0)
		return CONTROL_NONE;
	for (size_t i = 0; i < size / sizeof(*groups); i++)
		if (groups[i] == (gid_t)gid)
			return CONTROL_OWN;
	return CONTROL_NONE;
}

int rundir_let_group(int sock, gid_t gid, struct error *e)
{
	struct sockaddr_un a = {0};
	socklen_t len = sizeof(a) - 1;
	size_t n = strlen(rundir_path());

	if (getsockname(sock, (struct sockaddr *)&a, &len) < 0 || a.sun_path[0] != '/')
		return error_say(e, EINVAL,
				 "the control socket has no path, and cannot be opened to a group");
	if (chown(a.sun_path, (uid_t)-1, gid) < 0 || chmod(a.sun_path, 0660) < 0)
		return error_set(e, errno, "open %s to group %u", a.sun_path, gid);
	if (strncmp(a.sun_path, rundir_path(), n) || a.sun_path[n] != '/')
		return 0;
	if (chown(rundir_path(), (uid_t)-1, gid) < 0 || chmod(rundir_path(), 0710) < 0)
		return error_set(e, errno, "open %s to group %u", rundir_path(), gid);
	return 0;
}
