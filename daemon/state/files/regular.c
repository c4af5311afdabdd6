/* SPDX-License-Identifier: Apache-2.0 */
/* What is opened again by its path: regular files, directories, harmless devices, and anything opened with
 * O_PATH. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <time.h>

#include "base/util.h"
#include "state/files/external.h"
#include "state/files/files.h"
#include "state/memory/memory.h"

#define MEM_MAJOR 1
#define RECENT_S  10

static int64_t mtime_ns(const struct stat *st)
{
	return (int64_t)st->st_mtim.tv_sec * 1000000000 + st->st_mtim.tv_nsec;
}

/* /dev/null, zero, full, random, urandom: no state behind them. */
static bool is_plain_device(const struct stat *st)
{
	unsigned n = minor(st->st_rdev);

	return S_ISCHR(st->st_mode) && major(st->st_rdev) == MEM_MAJOR &&
	       (n == 3 || n == 5 || n == 7 || n == 8 || n == 9);
}

static bool regular_match(const struct fd_facts *f)
{
	if (f->flags & O_PATH)
		return true;
	if (f->link[0] != '/' && f->link[0] != '(')
		return false;
	return S_ISREG(f->st.st_mode) || S_ISDIR(f->st.st_mode) || is_plain_device(&f->st);
}

static const char *noun(mode_t mode)
{
	return S_ISDIR(mode) ? "directory" : S_ISCHR(mode) ? "device" : S_ISREG(mode) ? "file" : "path";
}

static bool is_dead_dir(const struct fd_facts *f)
{
	return S_ISDIR(f->st.st_mode) && f->st.st_nlink == 0 && f->link[0] == '/';
}

static int regular_capture(struct capture *c, struct fd_facts *f, FileDescription *m, struct error *e)
{
	if (is_dead_dir(f)) {
		m->regular = xmalloc(sizeof(*m->regular));
		ferry__regular_file__init(m->regular);
		m->regular->path = files_strip_deleted(f->link);
		m->regular->mode = f->st.st_mode;
		m->regular->exists_only = true;
		m->regular->dead = dead_dir_describe(&f->st);
		return 0;
	}
	bool lost = link_remap_concerns(f);
	int r = lost ? 0 : files_need_name(f, noun(f->st.st_mode), e);

	if (r < 0)
		return r;
	m->regular = xmalloc(sizeof(*m->regular));
	ferry__regular_file__init(m->regular);
	if (lost)
		r = link_remap_capture(c, f, m->regular, e);
	else
		m->regular->path = xstrdup(f->link);
	if (r < 0)
		return r;
	m->regular->mode = f->st.st_mode;
	m->regular->size = f->st.st_size;
	m->regular->mtime_ns = mtime_ns(&f->st);
	m->regular->rdev = f->st.st_rdev;
	m->regular->object =
		S_ISREG(f->st.st_mode) ? memory_object_find(c->memory, f->st.st_dev, f->st.st_ino) : 0;
	/* Size and time of what is read only must be the same at the destination; other files are known to
	 * change. */
	m->regular->exists_only = !S_ISREG(f->st.st_mode) || f->flags & O_PATH ||
				  (f->flags & O_ACCMODE) != O_RDONLY ||
				  files_dev_is_pseudo(c, f->st.st_dev, f->link) ||
				  (!f->frozen && time(NULL) - f->st.st_mtim.tv_sec < RECENT_S);
	return 0;
}

/* A file that one task of the tree reads while another writes it changes between now and the freeze. */
static int regular_settle(struct capture *c, Ferry__Files *all, struct error *e)
{
	struct files_capture *f = files_capture_of(c);
	struct index_map written = {0};

	(void)e;
	for (size_t i = 0; i < f->n; i++)
		if (S_ISREG(f->ofds[i].st.st_mode) && (f->ofds[i].flags & O_ACCMODE) != O_RDONLY)
			*index_map_at(&written, f->ofds[i].st.st_dev, f->ofds[i].st.st_ino) = 1;
	for (size_t i = 0; written.n && i < all->n_files; i++) {
		FileDescription *m = all->files[i];
		const struct stat *st = &f->ofds[m->id - 1].st;

		if (m->regular && index_map_find(&written, st->st_dev, st->st_ino))
			m->regular->exists_only = true;
	}
	index_map_deinit(&written);
	return 0;
}

/* The same file as at the source, as far as can be told. */
static int compare(const FileDescription *m, const struct stat *st, struct error *e)
{
	const Ferry__RegularFile *f = m->regular;

	if ((st->st_mode ^ f->mode) & S_IFMT)
		return error_say(e, ENOENT, "pid %d fd %d: %s is a %s here, but was a %s", m->pid, m->fd,
				 f->path, noun(st->st_mode), noun(f->mode));
	if ((S_ISCHR(f->mode) || S_ISBLK(f->mode)) && st->st_rdev != f->rdev)
		return error_say(e, ENODEV, "pid %d fd %d: %s is device %u:%u here, but was %u:%u", m->pid,
				 m->fd, f->path, major(st->st_rdev), minor(st->st_rdev), major(f->rdev),
				 minor(f->rdev));
	if (f->exists_only)
		return 0;
	if ((uint64_t)st->st_size != f->size)
		return error_say(e, EINVAL,
				 "pid %d fd %d: %s has changed: it has %lld bytes here, but had %llu", m->pid,
				 m->fd, f->path, (long long)st->st_size, (unsigned long long)f->size);
	if (mtime_ns(st) != f->mtime_ns)
		return error_say(e, EINVAL,
				 "pid %d fd %d: %s has changed: it was last modified at %lld.%09ld here, but "
				 "at %lld.%09lld",
				 m->pid, m->fd, f->path, (long long)st->st_mtim.tv_sec, st->st_mtim.tv_nsec,
				 (long long)(f->mtime_ns / 1000000000),
				 (long long)(f->mtime_ns % 1000000000));
	return 0;
}

static int need_part(const FileDescription *m, struct error *e)
{
	return m->regular ? 0
			  : error_say(e, EPROTO, "the image says nothing of open file %llu",
				      (unsigned long long)m->id);
}

static int regular_check(struct rebuild *r, const FileDescription *m, struct error *e)
{
	int ret = need_part(m, e);

	/* One whose content travels is checked as a memory object. */
	if (ret < 0 || m->regular->object || m->regular->dead || inherited_is(r, m))
		return ret;
	/* It is given a name when the target is frozen. */
	if (m->regular->lost[0] && !m->regular->path[0])
		return 0;
	cleanup_free char *path = files_host_path(r, m->regular->path);
	struct stat st;

	/* Of a process that is still to be made here. */
	if (!strncmp(path, "/proc/", 6))
		return 0;
	if (lstat(path, &st) < 0)
		return error_set(e, errno, "pid %d fd %d: %s, which it has open, is missing here", m->pid,
				 m->fd, path);
	return compare(m, &st, e);
}

static int object_path(int fd, char **ret)
{
	char link[64];

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	return fd < 0 ? -ENOENT : readlink_at(AT_FDCWD, link, ret);
}

static int regular_open(struct rebuild *r, const FileDescription *m, int *ret_fd, struct error *e)
{
	int ret = need_part(m, e);

	if (ret < 0)
		return ret;
	if (inherited_is(r, m)) {
		*ret_fd = fcntl(inherited_find(r->options, m->regular->path), F_DUPFD_CLOEXEC, 0);
		return *ret_fd < 0
			       ? error_set(e, errno, "pid %d fd %d: taking the caller's descriptor for %s",
					   m->pid, m->fd, m->regular->path)
			       : 0;
	}
	int object = m->regular->object && r->object_fd ? r->object_fd(r, m->regular->object) : -1;
	cleanup_free char *path = NULL;

	if (m->regular->dead) {
		const char *dead;

		ret = dead_dir_make(r, m->regular->path, m->regular->dead, &dead, e);
		if (ret < 0)
			return error_prefix(e, "pid %d fd %d", m->pid, m->fd);
		path = xstrdup(dead);
	} else if (m->regular->object) /* under the name it has until all is there */
		ret = object_path(object, &path);
	else
		path = files_host_path(r, m->regular->path);
	if (ret < 0)
		return error_set(e, -ret, "pid %d fd %d: find the memory object of %s", m->pid, m->fd,
				 m->regular->path);
	int flags = files_open_flags(m->flags) | (S_ISLNK(m->regular->mode) ? O_NOFOLLOW : 0);
	/* A lease that somebody has on the file must not hold us up. */
	if (S_ISREG(m->regular->mode) && !(flags & O_PATH))
		flags |= O_NONBLOCK;
	bool lost = m->regular->lost[0] && object < 0;
	cleanup_close int fd = lost ? link_remap_open(r, m, flags, e) : open(path, flags);
	struct stat st;

	if (fd < 0 && lost)
		return fd;
	if (fd < 0 && errno == EWOULDBLOCK)
		return error_say(e, EWOULDBLOCK, "pid %d fd %d: somebody has a lease on %s here", m->pid,
				 m->fd, path);
	if (fd < 0)
		return error_set(e, errno, "pid %d fd %d: opening %s", m->pid, m->fd, path);
	if (fstat(fd, &st) < 0)
		return error_set(e, errno, "pid %d fd %d: fstat of %s", m->pid, m->fd, path);
	ret = object >= 0 ? 0 : compare(m, &st, e);
	if (ret < 0)
		return ret;
	if (m->pos && lseek(fd, m->pos, SEEK_SET) < 0)
		return error_set(e, errno, "pid %d fd %d: going to position %lld of %s", m->pid, m->fd,
				 (long long)m->pos, path);
	*ret_fd = TAKE_FD(fd);
	return 0;
}

const struct fd_type fd_regular = {
	.name = "regular",
	.kind = FILE_KIND(REGULAR),
	.by_path = true,
	.match = regular_match,
	.capture = regular_capture,
	.settle = regular_settle,
	.check = regular_check,
	.open = regular_open,
};
