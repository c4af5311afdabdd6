/* SPDX-License-Identifier: Apache-2.0 */
/* /proc/PID/task/TID/syscall: "running", "-1 SP PC" (blocked, in no call), or "NR six arguments SP PC". */
#include <errno.h>
#include <string.h>

#include "base/util.h"
#include "procfs/procfs.h"

int proc_syscall_parse(const char *text, long *ret)
{
	char *end;

	if (!strncmp(text, "running", 7))
		return -EAGAIN;
	errno = 0;
	long nr = strtol(text, &end, 10);

	if (end == text || (*end != ' ' && *end != '\n' && *end) || errno)
		return -EINVAL;
	*ret = nr;
	return 0;
}

int proc_syscall_read(pid_t pid, pid_t tid, long *ret)
{
	cleanup_free char *path = xasprintf("/proc/%d/task/%d/syscall", pid, tid), *text = NULL;
	ssize_t n = read_file(path, &text);

	return n < 0 ? (int)n : proc_syscall_parse(text, ret);
}
