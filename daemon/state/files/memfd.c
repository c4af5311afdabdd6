/* SPDX-License-Identifier: Apache-2.0 */
/* The content of a memfd is a shared memory object: state/memory keeps it, also when nobody maps it. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "base/util.h"
#include "state/files/files.h"
#include "state/memory/memory.h"

#define PREFIX "/memfd:"

static bool memfd_match(const struct fd_facts *f)
{
	return S_ISREG(f->st.st_mode) && !f->path_ok && !strncmp(f->link, PREFIX, strlen(PREFIX)) &&
	       !(f->flags & O_PATH);
}

static int memfd_capture(struct capture *c, struct fd_facts *f, FileDescription *m, struct error *e)
{
	cleanup_free char *name = files_strip_deleted(f->link + strlen(PREFIX));
	uint64_t object = 0;
	int r = memory_object_of_fd(c, f->copy, FERRY__OBJECT_KIND__OBJECT_MEMFD, name, &object, e);

	if (r < 0)
		return error_prefix(e, "pid %d fd %d", f->pid, f->fd);
	m->memfd = xmalloc(sizeof(*m->memfd));
	ferry__mem_fd__init(m->memfd);
	m->memfd->object = object;
	(void)memory_object_find(c->memory, f->st.st_dev, f->st.st_ino); /* it has a descriptor */
	return 0;
}

static int memfd_open(struct rebuild *r, const FileDescription *m, int *ret_fd, struct error *e)
{
	if (!m->memfd)
		return error_say(e, EPROTO, "the image says nothing of memfd %llu",
				 (unsigned long long)m->id);
	int object = r->object_fd ? r->object_fd(r, m->memfd->object) : -1;
	char path[64];

	if (object < 0)
		return error_say(e, ENOENT, "pid %d fd %d: its memory object %llu is not there", m->pid,
				 m->fd, (unsigned long long)m->memfd->object);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", object);
	cleanup_close int fd = open(path, files_open_flags(m->flags) & ~O_NOFOLLOW);

	if (fd < 0)
		return error_set(e, errno, "pid %d fd %d: opening a memfd", m->pid, m->fd);
	if (m->pos && lseek(fd, m->pos, SEEK_SET) < 0)
		return error_set(e, errno, "pid %d fd %d: going to position %lld", m->pid, m->fd,
				 (long long)m->pos);
	*ret_fd = TAKE_FD(fd);
	return 0;
}

const struct fd_type fd_memfd = {
	.name = "memfd",
	.kind = FILE_KIND(MEMFD),
	.match = memfd_match,
	.capture = memfd_capture,
	.open = memfd_open,
};
