/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A thread that lives in another namespace than we do would arrive in the wrong one, so it is refused.
 * Threads of one process may differ (unshare(2), setns(2)), and the namespaces for children may differ from
 * the current ones in a process that asked for new ones and has not forked yet.
 */
#include "state/namespaces/namespaces.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/util.h"
#include "procfs/procfs.h"

static const struct {
	const char *file, *name;
} namespaces[] = {
	{"user", "user"},     {"pid", "pid"},     {"pid_for_children", "pid (for its children)"},
	{"mnt", "mount"},     {"net", "network"}, {"ipc", "IPC"},
	{"uts", "UTS"},       {"time", "time"},   {"time_for_children", "time (for its children)"},
	{"cgroup", "cgroup"},
};

static int stat_namespace(pid_t pid, pid_t tid, const char *file, struct stat *ret)
{
	char path[96];

	if (tid)
		snprintf(path, sizeof(path), "/proc/%d/task/%d/ns/%s", pid, tid, file);
	else
		snprintf(path, sizeof(path), "/proc/thread-self/ns/%s", file);
	return stat(path, ret) < 0 ? -errno : 0;
}

/* 1: the same, 0: another one, -errno. One that this kernel does not have is the same. */
static int same_namespace(pid_t pid, pid_t tid, const char *file)
{
	struct stat own, its;
	int r = stat_namespace(0, 0, file, &own);

	if (r < 0)
		return r == -ENOENT ? 1 : r;
	r = stat_namespace(pid, tid, file, &its);
	/* A namespace for children that has none yet cannot be looked at; nor can any of a thread that has
	 * ended. */
	if (r == -ENOENT && strstr(file, "_for_children") && stat_namespace(pid, tid, "pid", &its) == 0)
		return 0;
	if (r < 0)
		return r;
	return own.st_ino == its.st_ino && own.st_dev == its.st_dev;
}

static int namespaces_preflight(struct capture *c, struct process *p, struct error *e)
{
	(void)c;
	/* Nothing leads to what it has open. */
	if (p->living && p->living_fd < 0)
		return error_say(
			e, EOPNOTSUPP,
			"pid %d: its main thread has ended while other threads run, and this kernel has no "
			"descriptors of threads (Linux 6.9): it cannot be moved",
			p->pid);
	for (size_t i = 0; i < p->n_threads; i++) {
		pid_t tid = p->threads[i]->task.tid;

		for (size_t n = 0; n < ARRAY_SIZE(namespaces); n++) {
			int r = same_namespace(p->pid, tid, namespaces[n].file);

			if (r == -ENOENT || r == -ESRCH)
				break; /* the thread has ended, or is a zombie leader */
			if (r < 0)
				return error_set(e, -r, "pid %d: cannot look at its %s namespace", tid,
						 namespaces[n].name);
			if (!r)
				return error_say(
					e, EOPNOTSUPP,
					"pid %d: lives in its own %s namespace, which cannot be moved yet",
					tid, namespaces[n].name);
		}
	}
	return 0;
}

const struct state_kind kind_namespaces = {
	.name = "namespaces",
	.scope = KIND_PROCESS,
	.preflight = namespaces_preflight,
};
