/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Shared memory that could be written by a descriptor: has anybody one?
 *
 * What a descriptor does to memory (write(2), fallocate, truncation, a mapping that comes and goes) leaves no
 * trace that is both sure and cheap.  But memory of which no descriptor is left, only mappings, can be
 * written by mappings alone, and it stays so until somebody opens it: by its name, or through a link in
 * /proc. The kernel tells of that (inotify, IN_OPEN), and of truncation by name (IN_MODIFY), before the call
 * returns.  So the object is watched first, and then all descriptors of all processes are looked at.  What
 * could go wrong, and why it does not:
 *  - A descriptor in no table: it is on its way in a socket (fdinfo tells, of listening sockets too), or
 * belongs to an io_uring (fdinfo tells that it has files).  Both count as if it was ours.
 *  - One that changes hands while we look, or was opened just before the watch and is not in its table yet:
 * the caller asks again in a later round (HOLDERS_LOOKS) before it believes the answer.
 *  - A thread with a table of its own: kcmp(2) finds it.
 *  - Processes that we do not see: then nothing is known.
 *  - A kernel that does not tell: after the watch is set we open the object ourselves and see.
 * Not covered: the kernel's own users of a file (a loop device, an NFS export, an overlay on top of it),
 * which have no descriptor; and the init of the system where it may not be looked at, for want of a
 * capability that it has.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/kcmp.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/util.h"
#include "procfs/procfs.h"
#include "state/memory/named.h"

#define PAUSE 10 /* times as long as a look took, till the next one; the second follows the first at once */

/* --- events ----------------------------------------------------------------------------------------- */

static void note_event(struct memory *m, const struct inotify_event *ev)
{
	bool all = ev->mask & IN_Q_OVERFLOW;

	for (size_t i = 0; i < m->n_objects; i++)
		if (m->objects[i]->watch && (all || m->objects[i]->watch == ev->wd)) {
			m->objects[i]->opened = true;
			if (ev->mask & (IN_IGNORED | IN_UNMOUNT))
				m->objects[i]->watch = 0;
		}
}

void holders_listen(struct memory *m)
{
	char buf[4096] __attribute__((aligned(__alignof__(struct inotify_event))));
	ssize_t n;

	while (m->inotify >= 0 && (n = read(m->inotify, buf, sizeof(buf))) > 0)
		for (char *p = buf; p < buf + n;) {
			const struct inotify_event *ev = (const struct inotify_event *)p;

			note_event(m, ev);
			p += sizeof(*ev) + ev->len;
		}
}

bool holders_watch(struct memory *m, struct memory_object *o)
{
	cleanup_free char *link = xasprintf("/proc/self/fd/%d", o->fd);

	if (o->watch)
		return true;
	if (m->inotify < 0)
		m->inotify = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
	int wd = m->inotify < 0 ? -1 : inotify_add_watch(m->inotify, link, IN_OPEN | IN_MODIFY);

	if (wd < 0)
		return false;
	o->watch = wd;
	o->opened = false;
	cleanup_close int fd = open(link, O_RDONLY | O_CLOEXEC);

	holders_listen(m);
	bool works = fd >= 0 && o->opened && o->watch;

	o->opened = false;
	if (!works && o->watch)
		inotify_rm_watch(m->inotify, o->watch);
	if (!works)
		o->watch = 0;
	return works;
}

/* --- descriptors ------------------------------------------------------------------------------------ */

static bool is_object(const struct memory_object *o, pid_t tid, int fd)
{
	cleanup_free char *link = xasprintf("/proc/%d/fd/%d", tid, fd);
	struct stat st;

	return stat(link, &st) < 0 || (st.st_dev == o->dev && st.st_ino == o->ino);
}

static void found_inode(struct memory *m, uint64_t ino, pid_t tid, int fd)
{
	for (size_t i = 0; i < m->n_objects; i++) {
		struct memory_object *o = m->objects[i];

		if (o->asked && o->ino == ino && is_object(o, tid, fd))
			o->held = true;
	}
}

/* One that has ended has nothing; one that may not be looked at may have anything. */
static bool is_nothing(int r)
{
	return r == -ENOENT || r == -ESRCH;
}

/* The mount of what has no file system: rings of io_uring are there, as is our inotify. 0: not known. */
static uint64_t anonymous_mount(const struct memory *m)
{
	cleanup_free char *path = xasprintf("/proc/self/fdinfo/%d", m->inotify), *text = NULL;
	uint64_t id;

	return m->inotify >= 0 && read_file(path, &text) > 0 && proc_field_u64(text, "mnt_id", 10, &id) ? id
													: 0;
}

static bool is_ring(pid_t tid, int fd)
{
	cleanup_free char *path = xasprintf("/proc/%d/fd/%d", tid, fd), *link = NULL;

	return readlink_at(AT_FDCWD, path, &link) >= 0 && !strcmp(link, "anon_inode:[io_uring]");
}

/* False: it may be, or hold, anything. */
static bool look_at_fd(struct memory *m, pid_t tid, int fd)
{
	cleanup_free char *path = xasprintf("/proc/%d/fdinfo/%d", tid, fd), *text = NULL;
	ssize_t n = read_file(path, &text);
	uint64_t flags, ino, files, mount;

	if (n < 0)
		return is_nothing((int)n);
	if (!proc_field_u64(text, "flags", 8, &flags) || !proc_field_u64(text, "ino", 10, &ino))
		return false;
	if ((proc_field_u64(text, "scm_fds", 10, &files) && files) ||
	    (proc_field_u64(text, "UserFiles", 10, &files) && files))
		return false;
	/* While a ring is at work the kernel does not tell what is registered with it. */
	if (!proc_field_u64(text, "UserFiles", 10, &files) && proc_field_u64(text, "mnt_id", 10, &mount) &&
	    (!m->anonymous_mount || mount == m->anonymous_mount) && is_ring(tid, fd))
		return false;
	if (!(flags & O_PATH))
		found_inode(m, ino, tid, fd);
	return true;
}

static bool look_at_table(struct memory *m, pid_t tid)
{
	cleanup_free int *fds = NULL;
	struct error e = ERROR_INIT;
	size_t n = 0;
	int r = proc_fds(tid, &fds, &n, &e);
	bool clear = r >= 0 || is_nothing(r);

	for (size_t i = 0; i < n && clear; i++)
		clear = look_at_fd(m, tid, fds[i]);
	return clear;
}

static bool look_at_process(struct memory *m, pid_t pid)
{
	cleanup_free pid_t *tids = NULL;
	struct error gone = ERROR_INIT;
	size_t n = 0;
	bool clear = look_at_table(m, pid);

	if (!clear || proc_threads(pid, &tids, &n, &gone) < 0)
		return clear;
	for (size_t i = 0; i < n && clear; i++)
		if (tids[i] != pid && syscall(SYS_kcmp, pid, tids[i], KCMP_FILES, 0, 0) != 0)
			clear = look_at_table(m, tids[i]);
	return clear;
}

static uint64_t cpu_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

bool holders_look(struct memory *m)
{
	cleanup_free pid_t *pids = NULL;
	struct error e = ERROR_INIT;
	size_t n = 0;
	uint64_t began = cpu_ns();
	bool again = false;

	if (now_ns() < m->holders_next)
		return false;
	for (size_t i = 0; i < m->n_objects; i++)
		m->objects[i]->held = false;
	m->anonymous_mount = anonymous_mount(m);
	bool clear = proc_pids(&pids, &n, &e) >= 0;

	for (size_t i = 0; i < n && clear; i++)
		if (pids[i] != getpid()) /* ours only read */
			clear = look_at_process(m, pids[i]);
	for (size_t i = 0; i < m->n_objects; i++) {
		struct memory_object *o = m->objects[i];

		o->held |= !clear;
		o->looks = !o->asked || o->held ? 0 : o->looks + 1;
		again |= o->looks && o->looks < HOLDERS_LOOKS;
	}
	if (!again)
		m->holders_next = now_ns() + PAUSE * (cpu_ns() - began);
	return true;
}
