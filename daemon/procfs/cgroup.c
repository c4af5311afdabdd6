/* SPDX-License-Identifier: Apache-2.0 */
/* Where cgroups are: cgroups(7), /proc/PID/cgroup and /proc/PID/mountinfo. */
#include <string.h>

#include "base/util.h"
#include "procfs/procfs.h"

static bool has_word(const char *list, const char *word, size_t n)
{
	for (const char *p = list; p; p = strchr(p, ','), p = p ? p + 1 : NULL)
		if (!strncmp(p, word, n) && (!p[n] || p[n] == ','))
			return true;
	return false;
}

static bool is_hierarchy(const char *list, const char *controller)
{
	return *controller ? has_word(list, controller, strcspn(controller, ",")) : !*list;
}

char *proc_cgroup_path(pid_t pid, const char *controller)
{
	cleanup_free char *file = xasprintf("/proc/%d/cgroup", pid), *text = NULL;
	char *save = NULL;

	if (read_file(file, &text) < 0)
		return NULL;
	for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		char *list = strchr(line, ':'), *path = list ? strchr(list + 1, ':') : NULL;

		if (!path)
			continue;
		*path++ = 0;
		if (is_hierarchy(list + 1, controller))
			return xstrdup(path);
	}
	return NULL;
}

char *proc_cgroup_dir(const char *controller, const char *path)
{
	struct proc_mounts mounts;
	struct error unread = ERROR_INIT;
	char *dir = NULL;

	if (proc_mounts_read(&mounts, &unread) < 0)
		return NULL;
	for (size_t i = 0; i < mounts.n && !dir; i++) {
		const struct proc_mount *m = &mounts.v[i];
		size_t n = !strcmp(m->root, "/") ? 0 : strlen(m->root);

		if (*controller ? strcmp(m->type, "cgroup") || !is_hierarchy(m->options, controller)
				: strcmp(m->type, "cgroup2") != 0)
			continue;
		if (!strncmp(path, m->root, n))
			dir = xasprintf("%s%s", m->point, !strcmp(path + n, "/") ? "" : path + n);
	}
	proc_mounts_deinit(&mounts);
	return dir;
}
