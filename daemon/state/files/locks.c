/* SPDX-License-Identifier: Apache-2.0 */
/*
 * RECORD_LOCKS: file locks and leases that are held.
 *
 * Whose is a lock?  A POSIX lock belongs to a process (its table of descriptors) and a file; those of
 * flock(2), F_OFD_SETLK and leases belong to an open file description, whoever took them.  All of them show
 * in fdinfo of the descriptor they were taken with; POSIX ones only when asked for their own process.  So
 * each process has a record of its POSIX locks and of those of descriptions for which it is the one that
 * takes them again: the one that took them, if it still has the description, else the first that has it.
 *
 * Reading fdinfo of thousands of files would cost, so then /proc/locks says which of them are locked at all
 * (not of a few: it waits for the other processors, for milliseconds, as it holds off all locking).  It tells
 * nothing of what was locked from outside our pid namespace, or with flock(2) by a process that has ended
 * (in other than the first pid namespace), and it names files by numbers that on some file systems are not
 * those of stat(2): in these cases fdinfo is read after all.
 *
 * Rebuild: each process takes its own, after all its descriptors are in place (closing any descriptor of the
 * file drops a POSIX lock, so none is closed after that), before anything of the tree runs.  Nobody hands a
 * lock over: at the source it goes when the target does.  What holds a lock on the file here, be it the
 * target itself on a file that both hosts share, is found before the freeze.  A thread that waits for a lock
 * needs nothing: its call is issued again, like any other.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>

#include "base/util.h"
#include "procfs/procfs.h"
#include "state/files/files.h"

#define FIRST_PID_NAMESPACE "pid:[4026531836]"

static const char *const kind_names[] = {"", "POSIX", "OFD", "flock", "lease"};

static uint64_t key_of(unsigned major, unsigned minor)
{
	return (uint64_t)major << 32 | minor;
}

/* --- capture ------------------------------------------------------------------------------------------ */

#define FEW 512 /* fdinfo of so many costs less than /proc/locks */

static bool has_few(const struct files_capture *f)
{
	size_t n = 0;

	for (size_t i = 0; i < f->n_tables; i++)
		n += f->tables[i].n;
	return n <= FEW;
}

static int read_locked(struct files_capture *f, struct error *e)
{
	cleanup_free struct proc_lock *l = NULL;
	cleanup_free char *ns = NULL;
	size_t n = 0;

	if (f->locks_read)
		return 0;
	int r = proc_locks_read(&l, &n, e);

	if (r < 0)
		return r;
	for (size_t i = 0; i < n; i++)
		*index_map_at(&f->locked, key_of(l[i].major, l[i].minor), l[i].ino) = 1;
	f->locks_everywhere =
		readlink_at(AT_FDCWD, "/proc/self/ns/pid", &ns) < 0 || strcmp(ns, FIRST_PID_NAMESPACE) != 0;
	f->locks_read = true;
	return 0;
}

/* Number @fd of @pid is @o. What /proc/locks does not show is never a POSIX lock of the tree: it is enough to
 * look at the first holder of the description. */
static bool may_be_locked(struct capture *c, const struct ofd *o, pid_t pid, int fd, bool all)
{
	struct files_capture *f = files_capture_of(c);

	if (o->flags & O_PATH || S_ISSOCK(o->st.st_mode) || !o->link || o->link[0] != '/')
		return false;
	return all || (f->locks_everywhere && o->pid == pid && o->fd == fd) ||
	       index_map_find(&f->locked, key_of(major(o->st.st_dev), minor(o->st.st_dev)), o->st.st_ino) ||
	       (f->locked.n && files_dev_is_odd(c, o->st.st_dev, o->link));
}

static bool has_description(const struct fd_table *t, uint32_t ofd)
{
	for (size_t i = 0; i < t->n; i++)
		if (t->fds[i].ofd == ofd)
			return true;
	return false;
}

/* Of all processes that have the description, the one that takes its locks again. */
static pid_t taker_of(const struct files_capture *f, uint32_t ofd, pid_t taken_by)
{
	pid_t first = 0;

	for (size_t i = 0; i < f->n_tables; i++) {
		const struct fd_table *t = &f->tables[i];

		if (t->shared_with || (first && t->pid != taken_by) || !has_description(t, ofd))
			continue;
		if (t->pid == taken_by)
			return t->pid;
		first = t->pid;
	}
	return first;
}

static Ferry__FileLockKind kind_of(enum proc_lock_kind k)
{
	static const Ferry__FileLockKind kinds[] = {
		[PROC_LOCK_POSIX] = FERRY__FILE_LOCK_KIND__LOCK_POSIX,
		[PROC_LOCK_OFD] = FERRY__FILE_LOCK_KIND__LOCK_OFD,
		[PROC_LOCK_FLOCK] = FERRY__FILE_LOCK_KIND__LOCK_FLOCK,
		[PROC_LOCK_LEASE] = FERRY__FILE_LOCK_KIND__LOCK_LEASE,
	};

	return kinds[k];
}

static int refuse(const struct ofd *o, pid_t pid, int fd, const struct proc_lock *l, struct error *e)
{
	if (l->kind == PROC_LOCK_OTHER)
		return error_say(e, ENOTSUP, "pid %d fd %d: %s has a lock of an unknown kind", pid, fd,
				 o->link);
	if (l->kind != PROC_LOCK_LEASE)
		return 0;
	if (l->breaking)
		return error_say(
			e, EBUSY,
			"pid %d fd %d: somebody who opens %s waits for its lease to be given up: try "
			"again later",
			pid, fd, o->link);
	if (!o->path_ok)
		return error_say(e, ENOTSUP,
				 "pid %d fd %d: a lease on %s, which has no name, is not supported", pid, fd,
				 o->link);
	return 0;
}

static void add_lock(Ferry__FileLocks *m, size_t *cap, const struct ofd *o, int fd, const struct proc_lock *l)
{
	Ferry__FileLock *x = xmalloc(sizeof(*x));

	ferry__file_lock__init(x);
	x->kind = kind_of(l->kind);
	x->write = l->write;
	x->start = l->start;
	x->end = l->end;
	x->fd = fd;
	x->path = xstrdup(o->link);
	x->named = o->path_ok;
	FILES_GROW(m->locks, m->n_locks, *cap);
	m->locks[m->n_locks++] = x;
}

/* @dir: fdinfo of the process, opened when first needed: half the cost of a whole path. */
static int take_of_number(struct files_capture *f, pid_t pid, pid_t living, int *dir, const struct fd_slot *s,
			  Ferry__FileLocks *m, size_t *cap, struct error *e)
{
	const struct ofd *o = &f->ofds[s->ofd];
	cleanup_free struct proc_lock *l = NULL;
	cleanup_free char *text = NULL;
	char path[64], number[16];
	size_t n = 0;

	snprintf(path, sizeof(path), "/proc/%d/fdinfo", living);
	snprintf(number, sizeof(number), "%d", s->fd);
	if (*dir < 0)
		*dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	ssize_t length = *dir < 0 ? -errno : read_file_at(*dir, number, &text);

	if (length < 0)
		return !f->frozen && (length == -ENOENT || length == -ESRCH)
			       ? 0
			       : error_set(e, -length, "pid %d fd %d: reading %s/%s", pid, s->fd, path,
					   number);
	int r = proc_locks_parse(text, true, &l, &n, e);

	if (r < 0)
		return error_prefix(e, "pid %d fd %d", pid, s->fd);
	for (size_t i = 0; i < n; i++) {
		r = refuse(o, pid, s->fd, &l[i], e);
		if (r < 0)
			return r;
		if (l[i].kind == PROC_LOCK_POSIX || taker_of(f, s->ofd, l[i].pid) == pid)
			add_lock(m, cap, o, s->fd, &l[i]);
	}
	return 0;
}

static int gather(struct capture *c, struct process *p, Ferry__FileLocks **ret, struct error *e)
{
	struct files_capture *f = files_capture_of(c);
	struct fd_table *t;
	struct index_map seen = {0};
	cleanup_close int dir = -1;
	size_t cap = 0;
	int r = files_table_of(c, p, &t, e);
	bool all = has_few(f);

	*ret = NULL;
	if (r < 0 || t->shared_with)
		return r;
	if (!all)
		r = read_locked(f, e);
	if (r < 0)
		return r;
	Ferry__FileLocks *m = xmalloc(sizeof(*m));

	ferry__file_locks__init(m);
	for (size_t i = 0; i < t->n && r >= 0; i++) {
		uint32_t ofd = t->fds[i].ofd;

		if (!may_be_locked(c, &f->ofds[ofd], p->pid, t->fds[i].fd, all) ||
		    index_map_find(&seen, ofd, 0))
			continue;
		*index_map_at(&seen, ofd, 0) = 1;
		r = take_of_number(f, p->pid, process_living(p), &dir, &t->fds[i], m, &cap, e);
	}
	index_map_deinit(&seen);
	if (r < 0)
		ferry__file_locks__free_unpacked(m, NULL);
	else
		*ret = m;
	return r;
}

static int locks_preflight(struct capture *c, struct process *p, struct error *e)
{
	Ferry__FileLocks *m = NULL;

	if (c->tree->frozen)
		return 0;
	int r = gather(c, p, &m, e);

	if (m)
		ferry__file_locks__free_unpacked(m, NULL);
	return r;
}

static int locks_take_warm(struct capture *c, struct process *p, struct thread *t, struct error *e)
{
	Ferry__FileLocks *m = NULL;
	int r = gather(c, p, &m, e);

	(void)t;
	if (m && m->n_locks)
		snapshot_put(c->snapshot, FERRY__RECORD_TYPE__RECORD_LOCKS, p->pid, 0, &m->base);
	else if (m)
		ferry__file_locks__free_unpacked(m, NULL);
	return r;
}

static int locks_take(struct capture *c, struct process *p, struct thread *t, struct batch *b, void *state,
		      struct error *e)
{
	(void)b;
	(void)state;
	return locks_take_warm(c, p, t, e);
}

int locks_check_extra(const struct fd_facts *f, const char *fdinfo, struct error *e)
{
	cleanup_free struct proc_lock *l = NULL;
	size_t n = 0;
	int r = proc_locks_parse(fdinfo, true, &l, &n, e);

	if (r >= 0 && n)
		return error_say(e, ENOTSUP,
				 "pid %d fd %d: a descriptor of %s that is queued in this socket holds a "
				 "lock, which is not supported",
				 f->pid, f->fd, f->link);
	return r;
}

/* --- rebuild ------------------------------------------------------------------------------------------ */

/* "its flock lock for writing (bytes 3 to 17) on /x" */
static char *describe(const Ferry__FileLock *l)
{
	char range[64] = "";

	if (l->kind > FERRY__FILE_LOCK_KIND__LOCK_LEASE)
		return xstrdup("a lock of an unknown kind");
	if (l->start && l->end == PROC_LOCK_EOF)
		snprintf(range, sizeof(range), " (from byte %llu)", (unsigned long long)l->start);
	else if (l->end != PROC_LOCK_EOF)
		snprintf(range, sizeof(range), " (bytes %llu to %llu)", (unsigned long long)l->start,
			 (unsigned long long)l->end);
	return xasprintf("its %s%s for %s%s on %s", kind_names[l->kind],
			 l->kind == FERRY__FILE_LOCK_KIND__LOCK_LEASE ? "" : " lock",
			 l->write ? "writing" : "reading", range, l->path);
}

static bool is_range(Ferry__FileLockKind k)
{
	return k == FERRY__FILE_LOCK_KIND__LOCK_POSIX || k == FERRY__FILE_LOCK_KIND__LOCK_OFD;
}

static bool in_conflict(const Ferry__FileLock *l, const struct proc_lock *other)
{
	Ferry__FileLockKind kind = kind_of(other->kind);

	if (other->waiting || (!l->write && !other->write))
		return false;
	if (kind == FERRY__FILE_LOCK_KIND__LOCK_LEASE) /* opening the file waits for it */
		return other->write || l->kind == kind;
	if (is_range(l->kind))
		return is_range(kind) && l->start <= other->end && other->start <= l->end;
	return l->kind == kind && kind == FERRY__FILE_LOCK_KIND__LOCK_FLOCK;
}

static const char *name_of(pid_t pid, char *buffer, size_t size)
{
	struct proc_stat st;
	struct error ignore = ERROR_INIT;

	if (pid <= 0 || proc_stat_read(pid, 0, &st, &ignore) < 0)
		snprintf(buffer, size, "a process that is not shown");
	else
		snprintf(buffer, size, "pid %d (%s)", pid, st.comm);
	return buffer;
}

static bool has_lease(const Ferry__FileLocks *m, const char *path)
{
	for (size_t i = 0; i < m->n_locks; i++)
		if (m->locks[i]->kind == FERRY__FILE_LOCK_KIND__LOCK_LEASE &&
		    !strcmp(m->locks[i]->path, path))
			return true;
	return false;
}

/* What /proc/locks does not show: held on another machine, or from another pid namespace. */
static int ask_file(const Ferry__FileLock *l, const char *path, int32_t pid, struct error *e)
{
	struct flock f = {.l_type = l->write ? F_WRLCK : F_RDLCK,
			  .l_whence = SEEK_SET,
			  .l_start = l->start,
			  .l_len = l->end == PROC_LOCK_EOF ? 0 : l->end - l->start + 1};
	cleanup_close int fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	char name[128];

	if (fd < 0 || fcntl(fd, F_OFD_GETLK, &f) < 0 || f.l_type == F_UNLCK)
		return 0;
	cleanup_free char *what = describe(l);

	return error_say(e, EAGAIN, "pid %d fd %d: %s cannot be taken again: %s has locked the file here",
			 pid, l->fd, what, name_of(f.l_pid, name, sizeof(name)));
}

/* Who has locked it here? The target itself, if the file is on a file system that both hosts have. */
static int locks_check(struct rebuild *r, int32_t pid, int32_t tid, const ProtobufCMessage *message,
		       struct error *e)
{
	const Ferry__FileLocks *m = (const Ferry__FileLocks *)message;
	cleanup_free struct proc_lock *l = NULL;
	size_t n = 0;
	int ret = proc_locks_read(&l, &n, e);

	(void)tid;
	for (size_t i = 0; i < m->n_locks && ret >= 0; i++) {
		cleanup_free char *path = files_host_path(r, m->locks[i]->path);
		struct stat st;

		if (!m->locks[i]->named || stat(path, &st) < 0)
			continue;
		for (size_t k = 0; k < n; k++) {
			char name[128];

			if (l[k].ino != st.st_ino || l[k].major != major(st.st_dev) ||
			    l[k].minor != minor(st.st_dev) || l[k].kind == PROC_LOCK_OTHER ||
			    !in_conflict(m->locks[i], &l[k]))
				continue;
			cleanup_free char *what = describe(m->locks[i]);

			return error_say(
				e, EAGAIN,
				"pid %d fd %d: %s cannot be taken again: %s has locked the file here", pid,
				m->locks[i]->fd, what, name_of(l[k].pid, name, sizeof(name)));
		}
		/* Opening a file breaks a lease. */
		if (is_range(m->locks[i]->kind) && !has_lease(m, m->locks[i]->path))
			ret = ask_file(m->locks[i], path, pid, e);
	}
	return ret;
}

static unsigned take_again(struct batch *b, const Ferry__FileLock *l, const char *label)
{
	struct flock range = {.l_type = l->write ? F_WRLCK : F_RDLCK,
			      .l_whence = SEEK_SET,
			      .l_start = l->start,
			      .l_len = l->end == PROC_LOCK_EOF ? 0 : l->end - l->start + 1};

	switch (l->kind) {
	case FERRY__FILE_LOCK_KIND__LOCK_POSIX:
		return batch_call(b, label, SYS_fcntl, ARG(l->fd), ARG(F_SETLK),
				  ARG_PUT(b, &range, sizeof(range)));
	case FERRY__FILE_LOCK_KIND__LOCK_OFD:
		return batch_call(b, label, SYS_fcntl, ARG(l->fd), ARG(F_OFD_SETLK),
				  ARG_PUT(b, &range, sizeof(range)));
	case FERRY__FILE_LOCK_KIND__LOCK_FLOCK:
		return batch_call(b, label, SYS_flock, ARG(l->fd),
				  ARG((l->write ? LOCK_EX : LOCK_SH) | LOCK_NB));
	default:
		return batch_call(b, label, SYS_fcntl, ARG(l->fd), ARG(F_SETLEASE),
				  ARG(l->write ? F_WRLCK : F_RDLCK));
	}
}

static int locks_build(struct rebuild *r, struct process *p, struct thread *t,
		       const ProtobufCMessage *message, struct batch *b, struct error *e)
{
	const Ferry__FileLocks *m = (const Ferry__FileLocks *)message;

	(void)t;
	for (size_t i = 0; i < m->n_locks; i++) {
		const Ferry__FileLock *l = m->locks[i];

		if (l->kind < FERRY__FILE_LOCK_KIND__LOCK_POSIX ||
		    l->kind > FERRY__FILE_LOCK_KIND__LOCK_LEASE || l->end < l->start)
			return error_say(e, EPROTO, "pid %d fd %d: the image has a lock of kind %d", p->pid,
					 l->fd, l->kind);
		cleanup_free char *what = describe(l);

		take_again(b, l, files_keep_label(r, xasprintf("fd %d: taking %s again", l->fd, what)));
	}
	return 0;
}

const struct state_kind kind_locks = {
	.name = "files/locks",
	.type = FERRY__RECORD_TYPE__RECORD_LOCKS,
	.scope = KIND_PROCESS,
	.descriptor = &ferry__file_locks__descriptor,
	.preflight = locks_preflight,
	.take_warm = locks_take_warm,
	.take = locks_take,
	.check = locks_check,
	.build = locks_build,
};
