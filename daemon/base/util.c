/* SPDX-License-Identifier: Apache-2.0 */
#include "base/util.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>

static void *checked(void *p)
{
	if (!p) {
		static const char msg[] = "Error: out of memory\n";

		if (write(2, msg, sizeof(msg) - 1) < 0)
			_exit(71);
		_exit(71);
	}
	return p;
}

void *xmalloc(size_t n)
{
	return checked(malloc(n ? n : 1));
}

void *xcalloc(size_t n, size_t size)
{
	return checked(calloc(n ? n : 1, size ? size : 1));
}

void *xrealloc(void *p, size_t n)
{
	return checked(realloc(p, n ? n : 1));
}

void *xmemdup(const void *p, size_t n)
{
	void *q = xmalloc(n);

	if (n)
		memcpy(q, p, n);
	return q;
}

char *xstrdup(const char *s)
{
	return checked(strdup(s));
}

char *xasprintf(const char *fmt, ...)
{
	va_list ap;
	char *s = NULL;

	va_start(ap, fmt);
	if (vasprintf(&s, fmt, ap) < 0)
		s = NULL;
	va_end(ap);
	return checked(s);
}

static atomic_bool aborted;

bool job_aborted(void)
{
	return atomic_load_explicit(&aborted, memory_order_relaxed);
}

void job_abort(void)
{
	atomic_store(&aborted, true);
}

int job_check_abort(struct error *e)
{
	return job_aborted() ? error_say(e, ECANCELED, "cancelled") : 0;
}

int read_full(int fd, void *p, size_t n)
{
	while (n) {
		ssize_t r = read(fd, p, n);

		if (r < 0 && errno == EINTR && !job_aborted())
			continue;
		if (r < 0)
			return -errno;
		if (r == 0)
			return -EPIPE;
		p = (char *)p + r;
		n -= r;
	}
	return 0;
}

int write_full(int fd, const void *p, size_t n)
{
	while (n) {
		ssize_t r = write(fd, p, n);

		if (r < 0 && errno == EINTR && !job_aborted())
			continue;
		if (r < 0)
			return -errno;
		p = (const char *)p + r;
		n -= r;
	}
	return 0;
}

int pread_full(int fd, void *p, size_t n, off_t off)
{
	while (n) {
		ssize_t r = pread(fd, p, n, off);

		if (r < 0 && errno == EINTR && !job_aborted())
			continue;
		if (r < 0)
			return -errno;
		if (r == 0)
			return -EPIPE;
		p = (char *)p + r;
		n -= r;
		off += r;
	}
	return 0;
}

int pwrite_full(int fd, const void *p, size_t n, off_t off)
{
	while (n) {
		ssize_t r = pwrite(fd, p, n, off);

		if (r < 0 && errno == EINTR && !job_aborted())
			continue;
		if (r < 0)
			return -errno;
		if (r == 0)
			return -EIO;
		p = (const char *)p + r;
		n -= r;
		off += r;
	}
	return 0;
}

ssize_t read_file_at(int dirfd, const char *path, char **ret)
{
	cleanup_close int fd = openat(dirfd, path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	size_t size = 4096, n = 0;
	cleanup_free char *buf = xmalloc(size);

	for (;;) {
		ssize_t r = read(fd, buf + n, size - n - 1);

		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0)
			return -errno;
		if (r == 0)
			break;
		n += r;
		if (size - n < size / 2) {
			size *= 2;
			buf = xrealloc(buf, size);
		}
	}
	buf[n] = 0;
	*ret = TAKE_PTR(buf);
	return n;
}

ssize_t read_file(const char *path, char **ret)
{
	return read_file_at(AT_FDCWD, path, ret);
}

int readlink_at(int dirfd, const char *path, char **ret)
{
	char buf[8192];
	ssize_t n = readlinkat(dirfd, path, buf, sizeof(buf) - 1);

	if (n < 0)
		return -errno;
	buf[n] = 0;
	*ret = xstrdup(buf);
	return 0;
}

uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + ts.tv_nsec;
}

uint64_t thread_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + ts.tv_nsec;
}

static char *libdir;

void paths_set_libdir(const char *dir)
{
	free(libdir);
	libdir = dir ? xstrdup(dir) : NULL;
}

int paths_find(const char *name, char **ret, struct error *e)
{
	const char *dirs[] = {libdir, getenv("FERRY_LIBDIR"), FERRY_LIBDIR, FERRY_BUILDDIR};

	/* A directory that was named is the only one looked into: a wrong --libdir must not go unnoticed. */
	size_t last = dirs[0] ? 1 : dirs[1] ? 2 : ARRAY_SIZE(dirs);

	for (size_t i = 0; i < last; i++) {
		if (!dirs[i])
			continue;
		cleanup_free char *path = xasprintf("%s/%s", dirs[i], name);

		if (access(path, R_OK) == 0) {
			*ret = TAKE_PTR(path);
			return 0;
		}
	}
	return error_say(e, ENOENT, "%s is not in %s (see --libdir)", name,
			 dirs[0]   ? dirs[0]
			 : dirs[1] ? dirs[1]
				   : FERRY_LIBDIR);
}

int sys_pidfd_open(pid_t pid, unsigned flags)
{
	int r = syscall(SYS_pidfd_open, pid, flags);

	return r < 0 ? -errno : r;
}

int sys_pidfd_getfd(int pidfd, int fd)
{
	int r = syscall(SYS_pidfd_getfd, pidfd, fd, 0);

	return r < 0 ? -errno : r;
}

int sys_pidfd_send_signal(int pidfd, int sig)
{
	return syscall(SYS_pidfd_send_signal, pidfd, sig, NULL, 0) < 0 ? -errno : 0;
}

int sys_kcmp(pid_t a, pid_t b, int type, unsigned long i, unsigned long j)
{
	int r = syscall(SYS_kcmp, a, b, type, i, j);

	return r < 0 ? -errno : r;
}

void close_all_but(int a, int b)
{
	int low = MIN(a, b), high = MAX(a, b);

	if (low > 3)
		close_range(3, (unsigned)low - 1, 0);
	if (high > low + 1)
		close_range((unsigned)low + 1, (unsigned)high - 1, 0);
	close_range((unsigned)high + 1, ~0u, 0);
}
