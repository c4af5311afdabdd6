/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>
#include <sys/eventfd.h>

#include "base/util.h"
#include "procfs/procfs.h"
#include "state/files/files.h"

static bool eventfd_match(const struct fd_facts *f)
{
	return !strcmp(f->link, "anon_inode:[eventfd]");
}

static int eventfd_capture(struct capture *c, struct fd_facts *f, FileDescription *m, struct error *e)
{
	const char *info = fd_facts_info(f, e);
	uint64_t count = 0, semaphore = 0;

	(void)c;
	if (!info)
		return -e->code;
	if (!proc_field_u64(info, "eventfd-count", 16, &count))
		return error_say(e, EIO, "pid %d fd %d: fdinfo does not show the counter of its eventfd",
				 f->pid, f->fd);
	proc_field_u64(info, "eventfd-semaphore", 10, &semaphore);
	m->eventfd = xmalloc(sizeof(*m->eventfd));
	ferry__event_fd__init(m->eventfd);
	m->eventfd->count = count;
	m->eventfd->semaphore = semaphore;
	return 0;
}

static int eventfd_open(struct rebuild *r, const FileDescription *m, int *ret_fd, struct error *e)
{
	(void)r;
	if (!m->eventfd)
		return error_say(e, EPROTO, "the image says nothing of eventfd %llu",
				 (unsigned long long)m->id);
	cleanup_close int fd =
		eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK | (m->eventfd->semaphore ? EFD_SEMAPHORE : 0));
	uint64_t count = m->eventfd->count;

	if (fd < 0 || (count && write(fd, &count, sizeof(count)) != sizeof(count)))
		return error_set(e, errno, "pid %d fd %d: making an eventfd of %llu", m->pid, m->fd,
				 (unsigned long long)count);
	*ret_fd = TAKE_FD(fd);
	return 0;
}

const struct fd_type fd_eventfd = {
	.name = "eventfd",
	.kind = FILE_KIND(EVENTFD),
	.match = eventfd_match,
	.capture = eventfd_capture,
	.open = eventfd_open,
};
