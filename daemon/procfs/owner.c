/* SPDX-License-Identifier: Apache-2.0 */
#include "procfs/owner.h"

#include <errno.h>
#include <sys/stat.h>

#include "base/util.h"
#include "procfs/procfs.h"

static int refuse(pid_t pid, uid_t owner, const char *why, struct error *e)
{
	return error_say(e, EPERM, "process %d is not one that user %u may move or dump: %s", pid, owner,
			 why);
}

static int check_thread(pid_t pid, pid_t tid, uid_t owner, struct error *e)
{
	struct proc_status st;
	int r = proc_status_read(pid, tid, &st, e);

	if (r < 0)
		return r;
	for (size_t i = 0; i < ARRAY_SIZE(st.uid) && r >= 0; i++)
		if (st.uid[i] != owner)
			r = refuse(pid, owner, "it has the rights of another user", e);
	if (r >= 0 && st.cap_prm)
		r = refuse(pid, owner, "it has capabilities", e);
	proc_status_deinit(&st);
	return r;
}

int proc_owner_check(pid_t pid, uid_t owner, struct error *e)
{
	cleanup_free char *dir = xasprintf("/proc/%d", pid), *tasks = xasprintf("/proc/%d/task", pid);
	cleanup_closedir DIR *d = opendir(tasks);
	struct dirent *entry;
	struct stat st;
	int r = 0;

	if (!d || stat(dir, &st) < 0)
		return error_set(e, ESRCH, "look at process %d", pid);
	/* The kernel gives it to root where the process is not dumpable: after setuid, setgid, or an exec of
	 * what cannot be read. */
	if (st.st_uid != owner)
		return refuse(pid, owner, "it belongs to somebody else, or has had rights of somebody else",
			      e);
	while (r >= 0 && (entry = readdir(d))) {
		pid_t tid = (pid_t)strtol(entry->d_name, NULL, 10);

		if (tid <= 0)
			continue;
		r = check_thread(pid, tid, owner, e);
		if (r == -ENOENT || r == -ESRCH) { /* it has ended meanwhile */
			error_clear(e);
			r = 0;
		}
	}
	return r;
}
