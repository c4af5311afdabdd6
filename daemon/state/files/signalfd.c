/* SPDX-License-Identifier: Apache-2.0 */
/* The signals that wait belong to the task: only the set is the descriptor's. */
#include <errno.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>

#include "base/util.h"
#include "procfs/procfs.h"
#include "state/files/files.h"

static bool signalfd_match(const struct fd_facts *f)
{
	return !strcmp(f->link, "anon_inode:[signalfd]");
}

static int signalfd_capture(struct capture *c, struct fd_facts *f, FileDescription *m, struct error *e)
{
	const char *info = fd_facts_info(f, e);
	uint64_t mask;

	(void)c;
	if (!info)
		return -e->code;
	if (!proc_field_u64(info, "sigmask", 16, &mask))
		return error_say(e, EIO, "pid %d fd %d: fdinfo does not show the set of its signalfd", f->pid,
				 f->fd);
	m->signalfd = xmalloc(sizeof(*m->signalfd));
	ferry__signal_fd__init(m->signalfd);
	m->signalfd->mask = mask;
	return 0;
}

static int signalfd_open(struct rebuild *r, const FileDescription *m, int *ret_fd, struct error *e)
{
	(void)r;
	if (!m->signalfd)
		return error_say(e, EPROTO, "the image says nothing of signalfd %llu",
				 (unsigned long long)m->id);
	uint64_t mask = m->signalfd->mask;

	/* The kernel's set of 8 bytes, not the libc's: it has the signals that the libc keeps for itself too.
	 */
	*ret_fd = syscall(SYS_signalfd4, -1, &mask, sizeof(mask), SFD_CLOEXEC);
	return *ret_fd < 0 ? error_set(e, errno, "pid %d fd %d: making a signalfd", m->pid, m->fd) : 0;
}

const struct fd_type fd_signalfd = {
	.name = "signalfd",
	.kind = FILE_KIND(SIGNALFD),
	.match = signalfd_match,
	.capture = signalfd_capture,
	.open = signalfd_open,
};
