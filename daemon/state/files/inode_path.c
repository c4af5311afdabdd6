/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From an inode to a name.  The file handle, opened in a mount of its file system, gives the name at once if
 * the kernel has it in its cache of names, which for directories it always arranges.  For other files that
 * nobody has used for long, and for file systems that open no handles (overlayfs), directories are gone
 * through, comparing inode numbers: on the one file system, and no more than so many entries.
 */
#include "state/files/inode_path.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "base/util.h"
#include "procfs/procfs.h"

#define MAX_ENTRIES 500000u

struct known {
	dev_t dev;    /* of the file system, as the kernel has it */
	dev_t st_dev; /* as stat(2) has it */
	uint64_t ino;
	char *path;
};

struct inode_paths {
	struct known *v;
	size_t n, cap;
};

static bool hex_bytes(const char *text, uint8_t *to, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		unsigned v;

		if (sscanf(text + (size_t)i * 2, "%2x", &v) != 1)
			return false;
		to[i] = (uint8_t)v;
	}
	return true;
}

bool inode_name_handle(const char *line, struct inode_name *n)
{
	const char *handle = strstr(line, "fhandle-bytes:"), *end = strchr(line, '\n');
	unsigned bytes, type;
	int at = 0;

	if (!handle || (end && handle > end))
		return true;
	if (sscanf(handle, "fhandle-bytes:%x fhandle-type:%x f_handle:%n", &bytes, &type, &at) != 2 || !at ||
	    bytes > sizeof(n->handle) || strspn(handle + at, "0123456789abcdef") < (size_t)bytes * 2)
		return false;
	n->handle_bytes = bytes;
	n->handle_type = (int)type;
	return hex_bytes(handle + at, n->handle, bytes);
}

void inode_paths_free(struct inode_paths *p)
{
	for (size_t i = 0; p && i < p->n; i++)
		free(p->v[i].path);
	if (p)
		free(p->v);
	free(p);
}

static char *find_known(const struct inode_paths *p, const struct inode_name *n)
{
	for (size_t i = p->n; i-- > 0;) {
		const struct known *k = &p->v[i];
		struct stat st;

		if (k->ino == n->ino && k->dev == n->dev && lstat(k->path, &st) == 0 && st.st_ino == k->ino &&
		    st.st_dev == k->st_dev)
			return xstrdup(k->path);
	}
	return NULL;
}

static void keep(struct inode_paths *p, const struct inode_name *n, const char *path, dev_t st_dev)
{
	if (p->n == p->cap) {
		p->cap = p->cap ? p->cap * 2 : 16;
		p->v = xrealloc(p->v, p->cap * sizeof(*p->v));
	}
	p->v[p->n++] = (struct known){n->dev, st_dev, n->ino, xstrdup(path)};
}

static char *by_handle(const struct inode_name *n, int mount, dev_t *ret_dev, bool *ret_deleted)
{
	union {
		struct file_handle h;
		char room[sizeof(struct file_handle) + sizeof(n->handle)];
	} x;
	cleanup_free char *path = NULL;
	struct stat it, there;
	char link[64];

	x.h.handle_bytes = n->handle_bytes;
	x.h.handle_type = n->handle_type;
	memcpy(x.h.f_handle, n->handle, n->handle_bytes);
	cleanup_close int fd = open_by_handle_at(mount, &x.h, O_PATH | O_NOFOLLOW | O_CLOEXEC);

	if (fd < 0)
		return NULL;
	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	if (fstat(fd, &it) == 0 && it.st_nlink == 0)
		*ret_deleted = true;
	if (*ret_deleted || fstat(fd, &it) < 0 || readlink_at(AT_FDCWD, link, &path) < 0 || path[0] != '/' ||
	    lstat(path, &there) < 0 || it.st_dev != there.st_dev || it.st_ino != there.st_ino)
		return NULL;
	*ret_dev = it.st_dev;
	return TAKE_PTR(path);
}

struct search {
	dev_t st_dev;
	uint64_t ino;
	char **queue; /* of directories */
	size_t n, cap;
	unsigned seen;
};

static void push(struct search *s, char *path)
{
	if (s->n == s->cap) {
		s->cap = s->cap ? s->cap * 2 : 64;
		s->queue = xrealloc(s->queue, s->cap * sizeof(*s->queue));
	}
	s->queue[s->n++] = path;
}

static char *search_dir(struct search *s, const char *dir)
{
	cleanup_closedir DIR *d = opendir(dir);
	struct dirent *de;
	struct stat st;

	if (!d || fstat(dirfd(d), &st) < 0 || st.st_dev != s->st_dev)
		return NULL;
	while ((de = readdir(d)) && s->seen++ < MAX_ENTRIES) {
		if (!strcmp(de->d_name, ".") || !strcmp(de->d_name, ".."))
			continue;
		char *path = xasprintf("%s/%s", strcmp(dir, "/") ? dir : "", de->d_name);

		if (de->d_ino == s->ino && lstat(path, &st) == 0 && st.st_ino == s->ino &&
		    st.st_dev == s->st_dev)
			return path;
		if (de->d_type == DT_DIR ||
		    (de->d_type == DT_UNKNOWN && lstat(path, &st) == 0 && S_ISDIR(st.st_mode)))
			push(s, path);
		else
			free(path);
	}
	return NULL;
}

/* Nearest directories first. */
static char *by_search(const char *from, uint64_t ino, dev_t *ret_dev)
{
	struct search s = {.ino = ino};
	struct stat st;
	char *found = NULL;

	if (lstat(from, &st) < 0)
		return NULL;
	*ret_dev = s.st_dev = st.st_dev;
	if (st.st_ino == ino)
		return xstrdup(from);
	push(&s, xstrdup(from));
	for (size_t i = 0; i < s.n && !found && s.seen < MAX_ENTRIES && !job_aborted(); i++)
		found = search_dir(&s, s.queue[i]);
	for (size_t i = 0; i < s.n; i++)
		free(s.queue[i]);
	free(s.queue);
	return found;
}

int inode_path_find(struct inode_paths **paths, const struct inode_name *n, bool may_search, char **ret,
		    struct error *e)
{
	struct proc_mounts mounts;
	dev_t st_dev = 0;
	bool deleted = false;

	if (!*paths)
		*paths = xcalloc(1, sizeof(**paths));
	*ret = find_known(*paths, n);
	if (*ret)
		return 0;
	int r = proc_mounts_read(&mounts, e);

	if (r < 0)
		return r;
	for (int search = 0; search <= may_search && !*ret && !deleted; search++)
		for (size_t i = 0; i < mounts.n && !*ret && !deleted; i++) {
			const struct proc_mount *m = &mounts.v[i];

			if (makedev(m->major, m->minor) != n->dev)
				continue;
			cleanup_close int fd = open(m->point, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

			if (fd < 0)
				continue;
			if (search)
				*ret = by_search(m->point, n->ino, &st_dev);
			else if (n->handle_bytes)
				*ret = by_handle(n, fd, &st_dev, &deleted);
		}
	proc_mounts_deinit(&mounts);
	if (!*ret)
		return -ENOENT;
	keep(*paths, n, *ret, st_dev);
	return 0;
}
