/* SPDX-License-Identifier: Apache-2.0 */
/* Where groups are: the mounts are read while the target runs, not again in the freeze. */
#include <string.h>

#include "base/util.h"
#include "procfs/procfs.h"
#include "state/cgroups/cgroups.h"

struct seen_dir {
	char *controllers, *path, *dir;
};

struct cgroup_capture { /* c->cgroups */
	struct seen_dir *dirs;
	size_t n_dirs;
};

const char *cgroup_seen_dir(struct capture *c, const char *controllers, const char *path)
{
	struct cgroup_capture *x = c->cgroups;

	if (!x)
		x = c->cgroups = xcalloc(1, sizeof(*x));
	for (size_t i = 0; i < x->n_dirs; i++)
		if (!strcmp(x->dirs[i].controllers, controllers) && !strcmp(x->dirs[i].path, path))
			return x->dirs[i].dir;
	x->dirs = xrealloc(x->dirs, (x->n_dirs + 1) * sizeof(*x->dirs));
	x->dirs[x->n_dirs] =
		(struct seen_dir){xstrdup(controllers), xstrdup(path), proc_cgroup_dir(controllers, path)};
	return x->dirs[x->n_dirs++].dir;
}

void cgroups_capture_free(struct capture *c)
{
	struct cgroup_capture *x = c->cgroups;

	for (size_t i = 0; x && i < x->n_dirs; i++) {
		free(x->dirs[i].controllers);
		free(x->dirs[i].path);
		free(x->dirs[i].dir);
	}
	if (x)
		free(x->dirs);
	free(x);
	c->cgroups = NULL;
}
