/* SPDX-License-Identifier: Apache-2.0 */
/* The other half of userfaultfd.c: made, registered and filled at the destination. */
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "base/page_set.h"
#include "base/util.h"
#include "procfs/pagemap.h"
#include "state/files/files.h"
#include "state/files/userfaultfd.h"
#include "state/memory/memory.h"

#define MADV_DONTNEED_LOCKED_ 24 /* linux/mman.h, since 5.18 */

int userfaultfd_check_here(struct rebuild *r, const FileDescription *m, struct error *e)
{
	const Ferry__UserFaultFd *u = m->userfaultfd;
	struct uffdio_api api = {.api = UFFD_API};

	(void)r;
	if (!u)
		return error_say(e, EPROTO, "the image says nothing of userfaultfd %llu",
				 (unsigned long long)m->id);
	cleanup_close int fd = syscall(SYS_userfaultfd, O_CLOEXEC);

	if (fd < 0 || ioctl(fd, UFFDIO_API, &api) < 0)
		return error_set(e, errno, "pid %d fd %d: no userfaultfd can be made here", m->pid, m->fd);
	if (u->ready && u->features & ~api.features)
		return error_say(e, ENOTSUP,
				 "pid %d fd %d: its userfaultfd has features 0x%llx that this kernel lacks",
				 m->pid, m->fd, (unsigned long long)(u->features & ~api.features));
	return 0;
}

static int make_flags(const FileDescription *m)
{
	return O_CLOEXEC | (m->flags & O_NONBLOCK) |
	       (m->userfaultfd->user_mode_only ? UFFD_USER_MODE_ONLY : 0);
}

/* The memory it handles is that of who makes it. */
static int make_in(struct rebuild *r, const FileDescription *m, struct process *p, struct error *e)
{
	struct batch b = BATCH_INIT, end = BATCH_INIT;
	unsigned made = batch_call(&b, "make a userfaultfd", SYS_userfaultfd, ARG(make_flags(m)));
	int fd = -1, ret = r->run_in(r, p, &b, e);

	if (ret >= 0) {
		cleanup_close int own = p->pidfd >= 0 ? -1 : sys_pidfd_open(p->pid, 0);
		int theirs = (int)batch_result(&b, made);

		fd = sys_pidfd_getfd(p->pidfd >= 0 ? p->pidfd : own, theirs);
		if (fd < 0)
			ret = error_set(e, -fd, "pid %d: taking a userfaultfd over", p->pid);
		batch_call(&end, "close a userfaultfd", SYS_close, ARG(theirs));
	}
	if (ret >= 0)
		ret = r->run_in(r, p, &end, e);
	if (ret < 0 && fd >= 0)
		close(fd);
	batch_deinit(&b);
	batch_deinit(&end);
	return ret < 0 ? error_prefix(e, "pid %d fd %d", m->pid, m->fd) : fd;
}

/* One that is left of a process that ended: made by a process that ends. */
static int make_orphan(const FileDescription *m, struct error *e)
{
	int go[2], theirs = -1, fd = -1;

	if (pipe2(go, O_CLOEXEC) < 0)
		return error_set(e, errno, "pid %d fd %d: making a pipe", m->pid, m->fd);
	pid_t child = fork();

	if (child == 0) {
		int made = syscall(SYS_userfaultfd, make_flags(m));

		if (write(go[1], &made, sizeof(made)) == sizeof(made))
			pause();
		_exit(0);
	}
	if (child > 0 && read(go[0], &theirs, sizeof(theirs)) == sizeof(theirs) && theirs >= 0) {
		cleanup_close int pidfd = sys_pidfd_open(child, 0);

		fd = sys_pidfd_getfd(pidfd, theirs);
	}
	if (child > 0) {
		kill(child, SIGKILL);
		waitpid(child, NULL, 0);
	}
	close(go[0]);
	close(go[1]);
	return fd >= 0 ? fd
		       : error_say(e, EIO,
				   "pid %d fd %d: a userfaultfd of a process that ended cannot be made",
				   m->pid, m->fd);
}

int userfaultfd_open(struct rebuild *r, const FileDescription *m, int *ret_fd, struct error *e)
{
	const Ferry__UserFaultFd *u = m->userfaultfd;

	if (!u)
		return error_say(e, EPROTO, "the image says nothing of userfaultfd %llu",
				 (unsigned long long)m->id);
	struct process *p = u->pid ? tree_find(r->tree, u->pid) : NULL;

	if (u->pid && (!p || !r->run_in))
		return error_say(e, EPROTO,
				 "pid %d fd %d: the image has no process %d, whose memory its userfaultfd "
				 "handles",
				 m->pid, m->fd, u->pid);
	cleanup_close int fd = p ? make_in(r, m, p, e) : make_orphan(m, e);
	struct uffdio_api api = {.api = UFFD_API, .features = u->features};

	if (fd < 0)
		return fd;
	if (u->ready && ioctl(fd, UFFDIO_API, &api) < 0)
		return error_set(e, errno, "pid %d fd %d: giving a userfaultfd its features 0x%llx", m->pid,
				 m->fd, (unsigned long long)u->features);
	*ret_fd = TAKE_FD(fd);
	return 0;
}

static int get_pairs(const uint64_t *v, size_t n, struct page_set *ret)
{
	for (size_t i = 0; i + 1 < n; i += 2) {
		if (v[i] >= v[i + 1] || (v[i] | v[i + 1]) % PAGE_SIZE_BYTES)
			return -EPROTO;
		page_set_add(ret, v[i], v[i + 1]);
	}
	return n % 2 ? -EPROTO : 0;
}

/* In what arrived, find what must not be there and what is not there but should. */
static int compare_pages(struct rebuild *r, const Ferry__UserFaultFd *u, struct page_set *extra,
			 struct page_set *lack)
{
	struct page_set want = PAGE_SET_INIT, have = PAGE_SET_INIT, range = PAGE_SET_INIT,
			part = PAGE_SET_INIT;
	const Ferry__Mm *mm =
		(const Ferry__Mm *)snapshot_find(r->snapshot, FERRY__RECORD_TYPE__RECORD_MM, u->pid, 0);
	cleanup_close int pagemap = pagemap_open(u->pid);
	int x = get_pairs(u->present, u->n_present, &want);

	if (pagemap < 0 || !mm)
		x = pagemap < 0 ? pagemap : -EPROTO;
	for (size_t i = 0; i < u->n_ranges && x >= 0; i++) {
		if (!u->ranges[i]->exact)
			continue;
		page_set_add(&range, u->ranges[i]->start, u->ranges[i]->end);
		for (size_t k = 0; k < mm->n_vmas && x >= 0; k++) {
			uint64_t from = MAX(mm->vmas[k]->start, u->ranges[i]->start),
				 to = MIN(mm->vmas[k]->end, u->ranges[i]->end);

			if (from < to)
				x = userfaultfd_pages(pagemap, mm->vmas[k], from, to, &have);
		}
	}
	page_set_minus(&have, &want, extra);
	page_set_and(&want, &range, &part);
	page_set_minus(&part, &have, lack);
	page_set_deinit(&want);
	page_set_deinit(&have);
	page_set_deinit(&range);
	page_set_deinit(&part);
	return x;
}

static int drop_pages(struct rebuild *r, struct process *p, const struct page_set *s, struct error *e)
{
	int x = 0;

	for (size_t i = 0; i < s->n && x >= 0;) {
		struct batch b = BATCH_INIT;

		for (; i < s->n && b.n < 4096; i++)
			batch_call(&b, "drop pages that must be missing", SYS_madvise, ARG(s->r[i].start),
				   ARG(s->r[i].end - s->r[i].start), ARG(MADV_DONTNEED_LOCKED_));
		x = r->run_in(r, p, &b, e);
		batch_deinit(&b);
	}
	return x;
}

static int range_error(const FileDescription *m, const char *what, uint64_t start, uint64_t end,
		       struct error *e)
{
	return error_set(e, errno, "pid %d fd %d: %s 0x%llx-0x%llx with a userfaultfd", m->pid, m->fd, what,
			 (unsigned long long)start, (unsigned long long)end);
}

/* Pages of zeros, which did not travel; of a range for minor faults: pages that are in the object but were
 * not yet in the page table. */
static int add_pages(const FileDescription *m, int fd, const struct page_set *lack, struct error *e)
{
	const Ferry__UserFaultFd *u = m->userfaultfd;

	for (size_t i = 0; i < u->n_ranges; i++)
		for (size_t k = 0; k < lack->n; k++) {
			uint64_t start = MAX(u->ranges[i]->start, lack->r[k].start),
				 end = MIN(u->ranges[i]->end, lack->r[k].end);
			bool minor = u->ranges[i]->modes & UFFDIO_REGISTER_MODE_MINOR;
			struct uffdio_zeropage zero = {.range = {start, end - start}};
			struct uffdio_continue next = {.range = {start, end - start}};

			if (start < end && (minor ? ioctl(fd, UFFDIO_CONTINUE, &next)
						  : ioctl(fd, UFFDIO_ZEROPAGE, &zero)) < 0)
				return range_error(m, "placing pages of", start, end, e);
		}
	return 0;
}

static int protect_pages(const FileDescription *m, int fd, struct error *e)
{
	const Ferry__UserFaultFd *u = m->userfaultfd;

	for (size_t i = 0; i + 1 < u->n_write_protected; i += 2) {
		struct uffdio_writeprotect wp = {
			.range = {u->write_protected[i], u->write_protected[i + 1] - u->write_protected[i]},
			.mode = UFFDIO_WRITEPROTECT_MODE_WP};

		if (ioctl(fd, UFFDIO_WRITEPROTECT, &wp) < 0)
			return range_error(m, "protecting", u->write_protected[i], u->write_protected[i + 1],
					   e);
	}
	return 0;
}

static int restore_ranges(struct rebuild *r, const FileDescription *m, struct process *p, int fd,
			  struct error *e)
{
	const Ferry__UserFaultFd *u = m->userfaultfd;
	struct page_set extra = PAGE_SET_INIT, lack = PAGE_SET_INIT;
	int x = compare_pages(r, u, &extra, &lack);

	if (x < 0)
		x = error_set(e, -x, "pid %d: look at the pages of its userfaultfd", u->pid);
	if (x >= 0) /* before anything is registered: dropping may be an event for the monitor */
		x = drop_pages(r, p, &extra, e);
	for (size_t i = 0; i < u->n_ranges && x >= 0; i++)
		if (!userfaultfd_register(fd, u->ranges[i]->start, u->ranges[i]->end, u->ranges[i]->modes))
			x = range_error(m, "registering", u->ranges[i]->start, u->ranges[i]->end, e);
	if (x >= 0)
		x = add_pages(m, fd, &lack, e);
	if (x >= 0)
		x = protect_pages(m, fd, e);
	page_set_deinit(&extra);
	page_set_deinit(&lack);
	return x;
}

/* All pages are in place by now. */
int userfaultfd_connect(struct rebuild *r, const FileDescription *m, struct error *e)
{
	const Ferry__UserFaultFd *u = m->userfaultfd;
	struct process *p = u->pid ? tree_find(r->tree, u->pid) : NULL;

	return p && u->n_ranges ? restore_ranges(r, m, p, files_host_fd(r, m->id), e) : 0;
}
