/* SPDX-License-Identifier: Apache-2.0 */
/* One process goes where another one is: into its cgroup of every hierarchy that is mounted here. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "base/util.h"
#include "freeze/cgroup.h"
#include "procfs/procfs.h"

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
		dir = proc_cgroup_dir(list + 1, path);
		moved += dir && move(who, dir) == 0;
	}
	return moved;
}
