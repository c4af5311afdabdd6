/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Counters as descriptors.  Whether one is a semaphore is said in fdinfo, but not by older kernels (6.1 is
 * one), and nowhere else.  There it is found out: a semaphore gives 1 when it is read, others give all they
 * have.  What was taken is put back, as a sum, so that nothing is lost if the kernel itself adds something in
 * between.  Of the frozen tree nobody can see that.  A process outside could, and it could take what is its
 * own no longer, so there must be none.  What can be seen afterwards, if the tree runs on: an edge-triggered
 * epoll with the descriptor in it reports it once more, if the counter is not zero.
 */
#include <errno.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/uio.h>

#include "base/util.h"
#include "procfs/procfs.h"
#include "state/files/eventfd.h"
#include "state/files/files.h"

/* --- semaphore or not ----------------------------------------------------------------------------------- */

static int add(int fd, uint64_t n)
{
	if (n && write(fd, &n, sizeof(n)) != sizeof(n))
		return -errno;
	return 0;
}

static int take(int fd, uint64_t *ret)
{
	const struct iovec v = {ret, sizeof(*ret)};
	ssize_t n = preadv2(fd, &v, 1, -1, RWF_NOWAIT);

	if (n < 0 &&
	    errno == EOPNOTSUPP) /* before Linux 5.8: it is not empty, so this does not wait either */
		n = read(fd, ret, sizeof(*ret));
	return n == sizeof(*ret) ? 0 : n < 0 ? -errno : -EIO;
}

int eventfd_find_semaphore(int fd, uint64_t count, bool *ret)
{
	uint64_t added = count < 2 ? 2 : 0, first, second = 0;
	int r = add(fd, added);

	if (r == 0)
		r = take(fd, &first);
	if (r < 0)
		return r;
	*ret = first == 1;
	if (*ret && added) /* one of the two is gone */
		return take(fd, &second);
	return add(fd, first - added);
}

static bool is_eventfd(const char *link)
{
	return !strcmp(link, "anon_inode:[eventfd]");
}

static void note_outside(void *ctx, pid_t pid, int fd)
{
	cleanup_free char *path = xasprintf("/proc/%d/fdinfo/%d", pid, fd), *info = NULL;
	uint64_t id;

	if (read_file(path, &info) > 0 && proc_field_u64(info, "eventfd-id", 10, &id))
		*index_map_at(ctx, id, 0) = pid;
}

static int eventfd_preflight(struct capture *c, struct fd_facts *f, struct error *e)
{
	struct files_capture *fc = files_capture_of(c);
	const char *info = fd_facts_info(f, e);
	struct error ignore = ERROR_INIT;
	struct proc_stat st = {.comm = "?"};
	uint64_t id = 0;

	if (!info)
		return -e->code;
	if (proc_field(info, "eventfd-semaphore"))
		return 0;
	if (!fc->eventfds_known)
		files_each_outside(c, is_eventfd, note_outside, &fc->eventfds_outside);
	fc->eventfds_known = true;
	pid_t holder = proc_field_u64(info, "eventfd-id", 10, &id)
			       ? (pid_t)index_map_find(&fc->eventfds_outside, id, 0)
			       : 0;

	if (!holder)
		return 0;
	proc_stat_read(holder, 0, &st, &ignore);
	return error_say(
		e, ENOTSUP,
		"pid %d fd %d: its eventfd is also held by pid %d (%s), which is not in the tree; this "
		"kernel does not tell whether it is a semaphore, and finding out would disturb that process",
		f->pid, f->fd, holder, st.comm);
}

/* --- the type ------------------------------------------------------------------------------------------- */

static bool eventfd_match(const struct fd_facts *f)
{
	return is_eventfd(f->link);
}

static int eventfd_capture(struct capture *c, struct fd_facts *f, FileDescription *m, struct error *e)
{
	const char *info = fd_facts_info(f, e);
	uint64_t count = 0, told = 0;
	bool semaphore = false;

	(void)c;
	if (!info)
		return -e->code;
	if (!proc_field_u64(info, "eventfd-count", 16, &count))
		return error_say(e, EIO, "pid %d fd %d: fdinfo does not show the counter of its eventfd",
				 f->pid, f->fd);
	if (proc_field_u64(info, "eventfd-semaphore", 10, &told)) {
		semaphore = told;
	} else if (f->frozen) { /* of a running one this is not asked: it would change it */
		int r = eventfd_find_semaphore(f->copy, count, &semaphore);

		if (r < 0)
			return error_set(
				e, -r, "pid %d fd %d: finding out whether its eventfd of %llu is a semaphore",
				f->pid, f->fd, (unsigned long long)count);
	}
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
	.preflight = eventfd_preflight,
	.capture = eventfd_capture,
	.open = eventfd_open,
};
