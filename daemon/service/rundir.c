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
	if ((st.st_mode & 077) && chmod(path, 0700) < 0)
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
