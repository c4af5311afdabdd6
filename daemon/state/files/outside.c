/* SPDX-License-Identifier: Apache-2.0 */
/* Descriptors of processes outside of the tree. */
#include <fcntl.h>

#include "base/util.h"
#include "procfs/procfs.h"
#include "state/files/files.h"

static void each_of(struct capture *c, pid_t pid, bool (*match)(const char *link),
		    void (*each)(void *ctx, pid_t pid, int fd), void *ctx)
{
	cleanup_free int *fds = NULL;
	size_t n = 0;
	struct error ignore = ERROR_INIT;
	pid_t living = proc_living(pid);

	if (proc_fds(living, &fds, &n, &ignore) < 0)
		return;
	for (size_t i = 0; i < n; i++) {
		cleanup_free char *path = xasprintf("/proc/%d/fd/%d", living, fds[i]), *link = NULL;

		if (readlink_at(AT_FDCWD, path, &link) >= 0 && match(link) && !tree_includes(c->tree, pid))
			each(ctx, pid, fds[i]);
	}
}

void files_each_outside(struct capture *c, bool (*match)(const char *link),
			void (*each)(void *ctx, pid_t pid, int fd), void *ctx)
{
	cleanup_free pid_t *pids = NULL;
	size_t n = 0;
	struct error ignore = ERROR_INIT;

	if (proc_pids(&pids, &n, &ignore) < 0)
		return;
	for (size_t i = 0; i < n; i++)
		if (pids[i] != getpid() && !tree_find(c->tree, pids[i]))
			each_of(c, pids[i], match, each, ctx);
}
