/* SPDX-License-Identifier: Apache-2.0 */
/* One process goes where another one is: into its cgroup of every hierarchy that is mounted here. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "base/util.h"
#include "freeze/cgroup.h"

static bool has_word(const char *list, const char *word, size_t n)
{
	for (const char *p = list; p; p = strchr(p, ','), p = p ? p + 1 : NULL)
		if (!strncmp(p, word, n) && (!p[n] || p[n] == ','))
			return true;
	return false;
}

/* @list: controllers as in /proc/PID/cgroup, "" for version 2. The directory of @path, or NULL. */
static char *find_dir(const char *list, const char *path)
{
	cleanup_free char *text = NULL;
	char *save = NULL;

	if (read_file("/proc/self/mountinfo", &text) < 0)
		return NULL;
	for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		char root[512], point[512], type[32], super[256];
		const char *dash = strstr(line, " - ");

		if (!dash || sscanf(line, "%*s %*s %*s %511s %511s", root, point) != 2 ||
		    sscanf(dash, " - %31s %*s %255s", type, super) != 2)
			continue;
		if (*list ? strcmp(type, "cgroup") || !has_word(super, list, strcspn(list, ","))
			  : strcmp(type, "cgroup2") != 0)
			continue;
		size_t n = !strcmp(root, "/") ? 0 : strlen(root);

		if (!strncmp(path, root, n))
			return xasprintf("%s%s", point, path + n);
	}
	return NULL;
}

static int move(pid_t who, const char *dir)
{
	cleanup_free char *path = xasprintf("%s/cgroup.procs", dir);
	cleanup_close int fd = open(path, O_WRONLY | O_CLOEXEC);
	char text[16];
	int n = snprintf(text, sizeof(text), "%d", who);

	return fd < 0 ? -errno : write_full(fd, text, (size_t)n);
}

int cgroup_follow(pid_t who, pid_t whom)
{
	cleanup_free char *mine = xasprintf("/proc/%d/cgroup", who),
			  *theirs = xasprintf("/proc/%d/cgroup", whom);
	cleanup_free char *is = NULL, *wanted = NULL;
	char *save = NULL;
	int moved = 0;

	if (read_file(mine, &is) < 0 || read_file(theirs, &wanted) < 0 || !strcmp(is, wanted))
		return 0;
	for (char *line = strtok_r(wanted, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		cleanup_free char *whole = xasprintf("%s\n", line), *dir = NULL;
		char *list = strchr(line, ':'), *path = list ? strchr(list + 1, ':') : NULL;

		/* A frozen one of version 1 could not even be killed. */
		if (!path || strstr(is, whole) || !strncmp(list, ":freezer:", 9))
			continue;
		*path++ = 0;
		dir = find_dir(list + 1, path);
		moved += dir && move(who, dir) == 0;
	}
	return moved;
}
