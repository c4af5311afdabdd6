/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Deleted directories.  There is nothing in them, and nothing can be put into them, so an empty one of the
 * same mode and owner, made and removed again, is the same.  It is made under the old name if that is free,
 * because the name is what /proc and getcwd(2) show of it for ever.
 */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "base/util.h"
#include "state/files/files.h"

struct dead_dir {
	uint64_t dir;
	char *name; /* where it is for now */
};

Ferry__DeadDir *dead_dir_describe(const struct stat *st)
{
	Ferry__DeadDir *d = xmalloc(sizeof(*d));

	ferry__dead_dir__init(d);
	d->dir = (uint64_t)st->st_dev << 48 ^ st->st_ino;
	d->mode = st->st_mode & 07777;
	d->uid = st->st_uid;
	d->gid = st->st_gid;
	return d;
}

int dead_dir_make(struct rebuild *r, const char *path, const Ferry__DeadDir *d, const char **ret,
		  struct error *e)
{
	struct files_rebuild *f = files_rebuild_of(r);
	int err = 0;

	for (size_t i = 0; i < f->n_dirs; i++)
		if (f->dirs[i].dir == d->dir) {
			*ret = f->dirs[i].name;
			return 0;
		}
	for (unsigned i = 0;; i++) {
		char *name = files_temporary_name(r, path, i);

		if (!name)
			return error_set(e, err, "making deleted directory %s again", path);
		if (mkdir(name, 0700) < 0) {
			err = errno;
			free(name);
			continue;
		}
		FILES_GROW(f->dirs, f->n_dirs, f->cap_dirs);
		f->dirs[f->n_dirs++] = (struct dead_dir){d->dir, name};
		if (chown(name, d->uid, d->gid) < 0 || chmod(name, d->mode & 07777) < 0)
			return error_set(e, errno, "setting owner and mode of deleted directory %s", path);
		*ret = name;
		return 0;
	}
}

void dead_dirs_free(struct files_rebuild *f)
{
	for (size_t i = 0; i < f->n_dirs; i++) {
		rmdir(f->dirs[i].name);
		free(f->dirs[i].name);
	}
	free(f->dirs);
	f->dirs = NULL;
	f->n_dirs = f->cap_dirs = 0;
}
