/* SPDX-License-Identifier: Apache-2.0 */
/* Who else maps a piece of shared memory: every process outside of the tree is looked at, so ask seldom. */
#include <stdio.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/util.h"
#include "state/memory/named.h"

static bool maps_inode(pid_t pid, uint64_t dev, uint64_t ino)
{
	struct proc_maps maps = {0};
	struct error gone = ERROR_INIT;
	bool found = false;

	if (proc_maps_read(proc_living(pid), false, &maps, &gone) < 0)
		return false;
	for (size_t i = 0; i < maps.n && !found; i++)
		found = maps.v[i].ino == ino && maps.v[i].dev_major == major(dev) &&
			maps.v[i].dev_minor == minor(dev);
	proc_maps_deinit(&maps);
	return found;
}

pid_t memory_outside_mapper(const struct tree *t, uint64_t dev, uint64_t ino, char comm[16])
{
	cleanup_free pid_t *pids = NULL;
	struct error gone = ERROR_INIT;
	struct proc_stat st;
	size_t n = 0;

	if (proc_pids(&pids, &n, &gone) < 0)
		return 0;
	for (size_t i = 0; i < n; i++) {
		if (pids[i] == getpid() || !maps_inode(pids[i], dev, ino) ||
		    tree_includes((struct tree *)t, pids[i]) || proc_stat_read(pids[i], 0, &st, &gone) < 0)
			continue;
		snprintf(comm, 16, "%.15s", st.comm);
		return pids[i];
	}
	return 0;
}
