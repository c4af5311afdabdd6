/* SPDX-License-Identifier: Apache-2.0 */
/* A userfaultfd on the memory of a target that is stopped. */
#include "target_uffd.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <linux/userfaultfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "pages.h"

/* Take descriptor @fd out of the target and see that it is what we made. */
static int take_fd(const struct dirty_target *t, int fd, char *why, size_t why_size)
{
	static const char want[] = "anon_inode:[userfaultfd]";
	char path[64], link[64] = "";
	int ours = (int)syscall(SYS_pidfd_getfd, t->pidfd, fd, 0);

	if (ours < 0)
		return fail(why, why_size, errno, "cannot take descriptor %d out of process %d", fd, t->pid);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", ours);
	if (readlink(path, link, sizeof(link) - 1) < 0 || strcmp(link, want) != 0) {
		close(ours);
		return refuse(why, why_size, EBADF,
			      "descriptor %d of process %d is %s and not the userfaultfd just made: its "
			      "threads have "
			      "descriptor tables of their own",
			      fd, t->pid, link);
	}
	return ours;
}

int target_make_uffd(const struct dirty_target *t, char *why, size_t why_size)
{
	uint64_t args[6] = {O_CLOEXEC | O_NONBLOCK};
	int64_t fd = t->syscall(t->ctx, SYS_userfaultfd, args);

	/* Without privilege only this kind may be made. Asynchronous protection wakes no handler, so that it
	 * sees what the kernel writes all the same. */
	if (fd == -EPERM) {
		args[0] |= UFFD_USER_MODE_ONLY;
		fd = t->syscall(t->ctx, SYS_userfaultfd, args);
	}
	if (fd < 0)
		return fail(why, why_size, (int)-fd, "process %d cannot create a userfaultfd", t->pid);
	int ours = take_fd(t, (int)fd, why, why_size);
	int64_t r = t->syscall(t->ctx, SYS_close, (uint64_t[6]){(uint64_t)fd});

	if (r < 0 && ours >= 0) {
		close(ours);
		return fail(why, why_size, (int)-r, "process %d cannot close descriptor %lld again", t->pid,
			    (long long)fd);
	}
	return ours;
}
