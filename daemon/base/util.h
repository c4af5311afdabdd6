/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Small helpers everyone uses: cleanup attributes for local resources, whole reads and writes, time. */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/types.h>
#include <dirent.h>
#include <unistd.h>

#include "base/error.h"

#define PAGE_SIZE_BYTES  4096UL
#define HUGE_PAGE_BYTES  (2UL << 20) /* what one entry of the second level maps */
#define PAGE_ROUND_UP(x) (((x) + PAGE_SIZE_BYTES - 1) & ~(PAGE_SIZE_BYTES - 1))
#define ARRAY_SIZE(a)    (sizeof(a) / sizeof((a)[0]))
#define MIN(a, b)        ((a) < (b) ? (a) : (b))
#define MAX(a, b)        ((a) > (b) ? (a) : (b))

static inline void cleanup_freep(void *p)
{
	free(*(void **)p);
}
static inline void cleanup_closep(const int *fd)
{
	if (*fd >= 0)
		close(*fd);
}
static inline void cleanup_fclosep(FILE **f)
{
	if (*f)
		fclose(*f);
}
static inline void cleanup_closedirp(DIR **d)
{
	if (*d)
		closedir(*d);
}
#define cleanup_free     __attribute__((cleanup(cleanup_freep)))
#define cleanup_close    __attribute__((cleanup(cleanup_closep)))
#define cleanup_fclose   __attribute__((cleanup(cleanup_fclosep)))
#define cleanup_closedir __attribute__((cleanup(cleanup_closedirp)))

/* Give up ownership of a local resource. */
#define TAKE_PTR(p)                     \
	({                              \
		typeof(p) taken_ = (p); \
		(p) = NULL;             \
		taken_;                 \
	})
#define TAKE_FD(fd)                \
	({                         \
		int taken_ = (fd); \
		(fd) = -1;         \
		taken_;            \
	})

/* Allocation that cannot fail: running out of memory ends the process with a message. Use for small
 * bookkeeping; page buffers use malloc and report. */
void *xmalloc(size_t n);
void *xcalloc(size_t n, size_t size);
void *xrealloc(void *p, size_t n);
void *xmemdup(const void *p, size_t n);
char *xstrdup(const char *s);
char *xasprintf(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* Whole transfers; restart on EINTR only if job_aborted() is false. 0, or -errno (-EPIPE at an early end of
 * file for read_full). */
int read_full(int fd, void *p, size_t n);
int write_full(int fd, const void *p, size_t n);
int pread_full(int fd, void *p, size_t n, off_t off);
int pwrite_full(int fd, const void *p, size_t n, off_t off);

/* Close every descriptor but 0, 1, 2, @a and @b (two different ones). */
void close_all_but(int a, int b);

/* Read a whole (proc) file, NUL terminated. *ret is malloc'ed; returns its length or -errno. */
ssize_t read_file_at(int dirfd, const char *path, char **ret);
ssize_t read_file(const char *path, char **ret);
/* readlink into a malloc'ed string; -errno on failure. */
int readlink_at(int dirfd, const char *path, char **ret);

/* Monotonic time in nanoseconds. */
uint64_t now_ns(void);
uint64_t thread_ns(void); /* the processor's time that the calling thread has used */

/* Where installed parts live: @name is "parasite.bin" or "backends". Order: --libdir (set by
 * paths_set_libdir), $FERRY_LIBDIR, the installed directory, the build tree. malloc'ed path, or -ENOENT in
 * @e. */
void paths_set_libdir(const char *dir);
int paths_find(const char *name, char **ret, struct error *e);

/* A job is asked to stop by SIGTERM/SIGINT or by the death of its supervisor. The handler only sets this
 * flag; long loops ask, and fail with -ECANCELED. */
bool job_aborted(void);
void job_abort(void);
int job_check_abort(struct error *e); /* 0 or -ECANCELED with a text */

/* System calls the libc of Debian 12 does not wrap. */
#ifndef PIDFD_THREAD /* Linux 6.9; O_EXCL */
#define PIDFD_THREAD 0200
#endif
int sys_pidfd_open(pid_t pid, unsigned flags);
int sys_pidfd_getfd(int pidfd, int fd);
int sys_pidfd_send_signal(int pidfd, int sig);
/* kcmp(2): 0 same, 1/2/3 order, -errno. */
int sys_kcmp(pid_t a, pid_t b, int type, unsigned long i, unsigned long j);
