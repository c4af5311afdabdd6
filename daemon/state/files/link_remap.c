/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files that have lost the name they were opened by, but have another one: not deleted, so their content must
 * not be copied.  The other name is looked for beside the old one; it is found for what was linked and
 * unlinked in one directory.  With --link-remap the file is given a name in the directory of the old one when
 * the target is frozen; the restore takes that name away again, and so do we if there is no image.
 *
 * Rebuild: the file gets its old name for a moment, if that is free, because the name is what /proc shows of
 * the description for ever.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/random.h>

#include "base/util.h"
#include "state/files/files.h"

struct remap {
	dev_t dev;
	ino_t ino;
	char *path;
};

bool link_remap_concerns(const struct fd_facts *f)
{
	return S_ISREG(f->st.st_mode) && !f->path_ok && f->st.st_nlink > 0 && f->link[0] == '/' &&
	       strncmp(f->link, "/proc/", 6) != 0 && files_marked_deleted(f->link);
}

/* Another name of the file in the directory of @old. malloc'ed, NULL: none. */
static char *find_beside(const char *old, const struct stat *st)
{
	const char *slash = strrchr(old, '/');
	cleanup_free char *dir = xasprintf("%.*s", (int)(slash - old), old);
	cleanup_closedir DIR *d = opendir(dir[0] ? dir : "/");
	struct dirent *de;
	struct stat it;

	while (d && (de = readdir(d)))
		if (fstatat(dirfd(d), de->d_name, &it, AT_SYMLINK_NOFOLLOW) == 0 && it.st_ino == st->st_ino &&
		    it.st_dev == st->st_dev)
			return xasprintf("%s/%s", dir, de->d_name);
	return NULL;
}

static int make_link(struct capture *c, const struct fd_facts *f, const char *old, char **ret,
		     struct error *e)
{
	struct files_capture *fc = files_capture_of(c);

	for (size_t i = 0; i < fc->n_remaps; i++)
		if (fc->remaps[i].dev == f->st.st_dev && fc->remaps[i].ino == f->st.st_ino) {
			*ret = xstrdup(fc->remaps[i].path);
			return 0;
		}
	cleanup_close int copy = files_copy_of(c, &fc->ofds[f->id - 1], e);
	uint64_t random = 0;
	char from[64];

	if (copy < 0)
		return copy;
	if (getrandom(&random, sizeof(random), 0) < 0)
		return error_set(e, errno, "getrandom");
	snprintf(from, sizeof(from), "/proc/self/fd/%d", copy);
	char *name = xasprintf("%s.ferry-%016llx", old, (unsigned long long)random);

	if (linkat(AT_FDCWD, from, AT_FDCWD, name, AT_SYMLINK_FOLLOW) < 0) {
		int err = errno;

		free(name);
		return error_set(e, err, "pid %d fd %d: giving a name to %s, which has lost this one", f->pid,
				 f->fd, old);
	}
	FILES_GROW(fc->remaps, fc->n_remaps, fc->cap_remaps);
	fc->remaps[fc->n_remaps++] = (struct remap){f->st.st_dev, f->st.st_ino, name};
	*ret = xstrdup(name);
	return 0;
}

int link_remap_capture(struct capture *c, const struct fd_facts *f, Ferry__RegularFile *m, struct error *e)
{
	bool allowed = c->options && c->options->link_remap;
	cleanup_free char *old = files_strip_deleted(f->link);

	m->path = find_beside(old, &f->st);
	if (!m->path && !allowed)
		return error_say(
			e, ENOTSUP,
			"pid %d fd %d: file %s has lost this name, but has another one that cannot be "
			"found out (inode %llu, %llu links): give it its old name back, or use "
			"--link-remap",
			f->pid, f->fd, f->link, (unsigned long long)f->st.st_ino,
			(unsigned long long)f->st.st_nlink);
	if (!m->path && f->frozen) {
		int r = make_link(c, f, old, &m->path, e);

		if (r < 0)
			return r;
		m->remapped = true;
	}
	m->lost = TAKE_PTR(old);
	return 0;
}

void link_remap_free(struct files_capture *f)
{
	for (size_t i = 0; i < f->n_remaps; i++) {
		if (!f->keep_remaps)
			unlink(f->remaps[i].path);
		free(f->remaps[i].path);
	}
	free(f->remaps);
	f->remaps = NULL;
	f->n_remaps = f->cap_remaps = 0;
}

void files_capture_keep(struct capture *c)
{
	if (c->files)
		files_capture_of(c)->keep_remaps = true;
}

/* --- rebuild ------------------------------------------------------------------------------------------ */

/* The temporary name is removed once the tree runs: until then the image may be needed again. */
static void remove_later(struct files_rebuild *f, const char *path)
{
	for (size_t i = 0; i < f->n_remapped; i++)
		if (!strcmp(f->remapped[i], path))
			return;
	FILES_GROW(f->remapped, f->n_remapped, f->cap_remapped);
	f->remapped[f->n_remapped++] = xstrdup(path);
}

int link_remap_open(struct rebuild *r, const FileDescription *m, int flags, struct error *e)
{
	cleanup_free char *path = files_host_path(r, m->regular->path);

	if (m->regular->remapped)
		remove_later(files_rebuild_of(r), path);
	for (unsigned i = 0;; i++) {
		cleanup_free char *name = files_temporary_name(r, m->regular->lost, i);

		if (!name) /* no place for another link: under the name it has */
			break;
		if (linkat(AT_FDCWD, path, AT_FDCWD, name, 0) < 0)
			continue;
		int fd = open(name, flags), err = errno;

		unlink(name);
		return fd < 0 ? error_set(e, err, "pid %d fd %d: opening %s", m->pid, m->fd, path) : fd;
	}
	int fd = open(path, flags);

	return fd < 0 ? error_set(e, errno, "pid %d fd %d: opening %s, another name of %s", m->pid, m->fd,
				  path, m->regular->lost)
		      : fd;
}

void link_remap_done(struct files_rebuild *f, bool started)
{
	for (size_t i = 0; i < f->n_remapped; i++) {
		if (started)
			unlink(f->remapped[i]);
		free(f->remapped[i]);
	}
	free(f->remapped);
	f->remapped = NULL;
	f->n_remapped = f->cap_remapped = 0;
}
