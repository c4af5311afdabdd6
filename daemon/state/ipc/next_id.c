/* SPDX-License-Identifier: Apache-2.0 */
#include "state/ipc/next_id.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/util.h"

#define KEEP_ID ((uid_t)-1)

static int ask_for_id(const char *what, int id, struct error *e)
{
	char path[64], text[16];
	int n = snprintf(text, sizeof(text), "%d", id);

	snprintf(path, sizeof(path), "/proc/sys/kernel/%s_next_id", what);
	cleanup_close int fd = open(path, O_WRONLY | O_CLOEXEC);

	return fd >= 0 && write(fd, text, n) == n ? 0 : error_set(e, errno, "ask for id %d in %s", id, path);
}

/* The effective ids alone, of this thread alone: the way back stays open. The kernel takes any such change as
 * a reason to forget the parent-death signal, by which a worker ends with its daemon, and that we may be
 * dumped: PR_SET_PDEATHSIG(2const), PR_SET_DUMPABLE(2const). */
static int make_as(uid_t uid, gid_t gid, key_t key, next_id_make make, void *ctx)
{
	int signal = 0, dumpable = prctl(PR_GET_DUMPABLE);

	prctl(PR_GET_PDEATHSIG, &signal);
	if (syscall(SYS_setresgid, KEEP_ID, gid, KEEP_ID) < 0)
		return -errno;
	int id = syscall(SYS_setresuid, KEEP_ID, uid, KEEP_ID) < 0 ? -errno : 0;

	if (id == 0) {
		id = make(ctx, key);
		id = id < 0 ? -errno : id;
	}
	if (syscall(SYS_setresuid, KEEP_ID, getuid(), KEEP_ID) < 0 ||
	    syscall(SYS_setresgid, KEEP_ID, getgid(), KEEP_ID) < 0)
		abort(); /* going on with another's rights would be worse */
	prctl(PR_SET_PDEATHSIG, signal);
	prctl(PR_SET_DUMPABLE, dumpable == 1);
	return id;
}

int next_id_get(const char *what, int id, uid_t uid, gid_t gid, key_t key, next_id_make make, void *ctx,
		struct error *e)
{
	int r = ask_for_id(what, id, e);

	return r < 0 ? r : make_as(uid, gid, key, make, ctx);
}
