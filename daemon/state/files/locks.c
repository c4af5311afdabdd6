/* SPDX-License-Identifier: Apache-2.0 */
/*
 * File locks and leases: they cannot be made again yet, and a program that believes to hold one must not find
 * itself without.  /proc/locks (proc_locks(5)) lists all of this machine: those of processes of the tree are
 * refused.  A lock of an open file description (OFDLCK) names no process: its file is compared with those the
 * tree has open.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/sysmacros.h>

#include "base/util.h"
#include "state/files/files.h"

static bool has_open(struct capture *c, struct process *p, unsigned major, unsigned minor,
		     unsigned long long ino)
{
	cleanup_free char *dir = xasprintf("/proc/%d/fd", p->pid);
	cleanup_closedir DIR *d = opendir(dir);
	struct dirent *de;
	struct stat st;

	(void)c;
	while (d && (de = readdir(d)))
		if (fstatat(dirfd(d), de->d_name, &st, 0) == 0 && st.st_ino == ino &&
		    major(st.st_dev) == major && minor(st.st_dev) == minor && S_ISREG(st.st_mode))
			return true;
	return false;
}

static int locks_preflight(struct capture *c, struct process *p, struct error *e)
{
	cleanup_free char *text = NULL;
	char *save = NULL;

	if (read_file("/proc/locks", &text) < 0)
		return 0; /* a kernel without file locking */
	for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		char kind[16], mode[16], access[16];
		unsigned major, minor;
		unsigned long long ino;
		int pid;

		/* A waiter ("->") waits for a lock that is listed, too; it tries again after the move. */
		if (strstr(line, "->") || sscanf(line, "%*d: %15s %15s %15s %d %x:%x:%llu", kind, mode,
						 access, &pid, &major, &minor, &ino) != 7)
			continue;
		bool mine = pid == p->pid || (pid == -1 && has_open(c, p, major, minor, ino));

		if (mine)
			return error_say(e, EOPNOTSUPP,
					 "pid %d: holds a lock (%s, %s) on file %x:%x inode %llu, which "
					 "cannot be moved yet",
					 p->pid, kind, access, major, minor, ino);
	}
	return 0;
}

const struct state_kind kind_locks = {
	.name = "files/locks",
	.scope = KIND_PROCESS,
	.preflight = locks_preflight,
};
