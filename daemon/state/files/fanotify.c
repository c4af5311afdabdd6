/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fanotify.  fdinfo tells its flags and each mark: an inode by number and file handle, a mount by its id, a
 * file system by its device.  Names are found from these; of mounts and file systems it is a mount point.
 *
 * Events are as with inotify: those that wait to be read cannot be looked at.  But a mark may be of a whole
 * file system, on which we work as well, so the queue must be empty when the program has just been stopped
 * (inotify_wait.c), and what comes after that counts as come meanwhile.
 *
 * Groups that decide (FAN_CLASS_CONTENT) hold up who opens a file until they answer: those are refused.  So
 * are those of a process that may not mark mounts: the kernel keeps from it whose the events are, and nobody
 * else could make one like that.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <stdio.h>
#include <string.h>
#include <sys/fanotify.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "base/util.h"
#include "procfs/procfs.h"
#include "state/files/files.h"
#include "state/files/inode_path.h"

/* By age of sys/fanotify.h. */
#define MARK_EVICTABLE 0x200u
#define MARK_IGNORE    0x400u
#define MARK_FLAGS     (FAN_MARK_IGNORED_SURV_MODIFY | MARK_EVICTABLE | MARK_IGNORE)
#define CLASSES        (FAN_CLASS_CONTENT | FAN_CLASS_PRE_CONTENT)

static bool fanotify_match(const struct fd_facts *f)
{
	return fanotify_is(f->link);
}

static int refuse(const struct fd_facts *f, const char *why, struct error *e)
{
	return error_say(e, ENOTSUP, "pid %d fd %d: a fanotify descriptor %s is not supported", f->pid, f->fd,
			 why);
}

/* --- capture -------------------------------------------------------------------------------------------- */

static int take_point(const struct fd_facts *f, const char *what, int id, dev_t dev, char **ret,
		      struct error *e)
{
	struct proc_mounts mounts;
	int r = proc_mounts_read(&mounts, e);

	if (r < 0)
		return r;
	for (size_t i = 0; i < mounts.n && !*ret; i++)
		if (id >= 0 ? mounts.v[i].id == id
			    : mounts.v[i].major == major(dev) && mounts.v[i].minor == minor(dev))
			*ret = xstrdup(mounts.v[i].point);
	proc_mounts_deinit(&mounts);
	return *ret ? 0
		    : error_say(e, ENOTSUP, "pid %d fd %d: its fanotify marks a %s that is not mounted here",
				f->pid, f->fd, what);
}

static int take_inode(struct capture *c, const struct fd_facts *f, const char *line, unsigned long long ino,
		      dev_t dev, char **ret, struct error *e)
{
	struct inode_name name = {.dev = dev, .ino = ino};
	int r = inode_name_handle(line, &name)
			? inode_path_find(&files_capture_of(c)->inode_paths, &name, !f->frozen, ret, e)
			: error_say(e, EIO, "pid %d fd %d: fdinfo shows a file handle in an unknown form",
				    f->pid, f->fd);

	return r == -ENOENT && !error_is(e) ? error_say(e, ENOTSUP,
							"pid %d fd %d: its fanotify marks a file (device "
							"%u:%u inode %llu) that has no "
							"name which could be found",
							f->pid, f->fd, major(dev), minor(dev), ino)
					    : r;
}

static dev_t device(unsigned sdev)
{
	return makedev(sdev >> 20, sdev & 0xfffff);
}

/* "fanotify ino:a74811 sdev:fe00000 mflags:40 mask:8000020 ignored_mask:2 fhandle-bytes:...", "fanotify
 * mnt_id:16 mflags:...", "fanotify sdev:16 mflags:..."; numbers are in hex. */
static int take_mark(struct capture *c, const struct fd_facts *f, const char *line, Ferry__FanotifyMark *m,
		     struct error *e)
{
	unsigned long long ino;
	unsigned sdev, id, flags, mask, ignored;
	int r;

	free(m->path);
	m->path = NULL;
	if (sscanf(line, "fanotify ino:%llx sdev:%x mflags:%x mask:%x ignored_mask:%x", &ino, &sdev, &flags,
		   &mask, &ignored) == 5) {
		m->scope = FERRY__FANOTIFY_SCOPE__FANOTIFY_INODE;
		r = take_inode(c, f, line, ino, device(sdev), &m->path, e);
	} else if (sscanf(line, "fanotify mnt_id:%x mflags:%x mask:%x ignored_mask:%x", &id, &flags, &mask,
			  &ignored) == 4) {
		m->scope = FERRY__FANOTIFY_SCOPE__FANOTIFY_MOUNT;
		r = take_point(f, "mount", (int)id, 0, &m->path, e);
	} else if (sscanf(line, "fanotify sdev:%x mflags:%x mask:%x ignored_mask:%x", &sdev, &flags, &mask,
			  &ignored) == 4) {
		m->scope = FERRY__FANOTIFY_SCOPE__FANOTIFY_FILE_SYSTEM;
		r = take_point(f, "file system", -1, device(sdev), &m->path, e);
	} else {
		return error_say(e, ENOTSUP, "pid %d fd %d: a mark of its fanotify is not supported: %.*s",
				 f->pid, f->fd, (int)MIN(strcspn(line, "\n"), 120ul), line);
	}
	if (!m->path)
		m->path = xstrdup("");
	m->flags = flags;
	m->mask = mask;
	m->ignored = ignored;
	if (r >= 0 && flags & ~MARK_FLAGS)
		return error_say(e, ENOTSUP, "pid %d fd %d: a mark of its fanotify has unknown flags 0x%x",
				 f->pid, f->fd, flags & ~MARK_FLAGS);
	return r;
}

static int check_group(const struct fd_facts *f, const Ferry__Fanotify *m, struct error *e)
{
	struct proc_status st;

	if (m->flags & CLASSES)
		return refuse(f, "that decides who may open files (FAN_CLASS_CONTENT)", e);
	int r = proc_status_read(f->living, 0, &st, e);

	if (r < 0)
		return r;
	bool may = st.cap_eff & 1ull << CAP_SYS_ADMIN;

	proc_status_deinit(&st);
	return may ? 0 : refuse(f, "of a process without CAP_SYS_ADMIN", e);
}

static int fanotify_capture(struct capture *c, struct fd_facts *f, FileDescription *file, struct error *e)
{
	const char *info = fd_facts_info(f, e);
	unsigned flags, event_flags;
	size_t cap = 0;

	if (!info)
		return -e->code;
	const char *line = strstr(info, "fanotify flags:");

	if (!line || sscanf(line, "fanotify flags:%x event-flags:%x", &flags, &event_flags) != 2)
		return error_say(e, EIO, "pid %d fd %d: fdinfo does not show its fanotify", f->pid, f->fd);
	Ferry__Fanotify *m = file->fanotify = xmalloc(sizeof(*m));

	ferry__fanotify__init(m);
	m->flags = flags;
	m->event_flags = event_flags;
	int r = check_group(f, m, e);

	while (r >= 0 && (line = strstr(line, "\nfanotify "))) {
		Ferry__FanotifyMark *mark = xmalloc(sizeof(*mark));

		line++;
		ferry__fanotify_mark__init(mark);
		mark->path = xstrdup("");
		FILES_GROW(m->marks, m->n_marks, cap);
		m->marks[m->n_marks++] = mark;
		r = take_mark(c, f, line, mark, e);
	}
	return r;
}

/* --- rebuild -------------------------------------------------------------------------------------------- */

static bool is_mount_point(const char *path)
{
	struct proc_mounts mounts;
	struct error ignore = ERROR_INIT;
	bool found = false;

	if (proc_mounts_read(&mounts, &ignore) < 0)
		return true; /* marking it will tell */
	for (size_t i = 0; i < mounts.n && !found; i++)
		found = !strcmp(mounts.v[i].point, path);
	proc_mounts_deinit(&mounts);
	return found;
}

static int check_mark(struct rebuild *r, const FileDescription *m, const Ferry__FanotifyMark *x,
		      struct error *e)
{
	cleanup_free char *path = files_host_path(r, x->path);
	struct stat st;

	if (strncmp(path, "/proc/", 6) != 0 && lstat(path, &st) < 0)
		return error_set(e, errno, "pid %d fd %d: %s, which its fanotify marks, is missing here",
				 m->pid, m->fd, path);
	if (x->scope != FERRY__FANOTIFY_SCOPE__FANOTIFY_INODE && !is_mount_point(path))
		return error_say(e, ENOENT,
				 "pid %d fd %d: at %s, which its fanotify marks, nothing is mounted here",
				 m->pid, m->fd, path);
	return 0;
}

static int fanotify_check(struct rebuild *r, const FileDescription *m, struct error *e)
{
	const Ferry__Fanotify *x = m->fanotify;
	int ret = 0;

	if (!x || x->flags & CLASSES)
		return error_say(e, EPROTO, "the image says nothing sensible of fanotify %llu",
				 (unsigned long long)m->id);
	for (size_t i = 0; i < x->n_marks && ret >= 0; i++)
		ret = check_mark(r, m, x->marks[i], e);
	return ret;
}

static int fanotify_open(struct rebuild *r, const FileDescription *m, int *ret_fd, struct error *e)
{
	(void)r;
	if (!m->fanotify)
		return error_say(e, EPROTO, "the image says nothing of fanotify %llu",
				 (unsigned long long)m->id);
	*ret_fd = fanotify_init(m->fanotify->flags, m->fanotify->event_flags); /* fdinfo shows FAN_CLOEXEC */
	if (*ret_fd < 0)
		return error_set(e, errno, "pid %d fd %d: making a fanotify (see fs.fanotify)", m->pid,
				 m->fd);
	return fcntl(*ret_fd, F_SETFD, FD_CLOEXEC) < 0
		       ? error_set(e, errno, "pid %d fd %d: its fanotify", m->pid, m->fd)
		       : 0;
}

static int mark_again(const FileDescription *m, const Ferry__FanotifyMark *x, const char *path, int fd,
		      struct error *e)
{
	static const unsigned scopes[] = {FAN_MARK_INODE, FAN_MARK_MOUNT, FAN_MARK_FILESYSTEM};
	unsigned flags = FAN_MARK_ADD | FAN_MARK_DONT_FOLLOW | (x->flags & MARK_EVICTABLE);
	unsigned ignore = x->flags & MARK_IGNORE ? MARK_IGNORE : FAN_MARK_IGNORED_MASK;

	if ((unsigned)x->scope >= ARRAY_SIZE(scopes))
		return error_say(e, EPROTO, "the image says nothing sensible of fanotify %llu",
				 (unsigned long long)m->id);
	flags |= scopes[x->scope];
	ignore |= x->flags & FAN_MARK_IGNORED_SURV_MODIFY;
	int r = x->mask ? fanotify_mark(fd, flags, x->mask, AT_FDCWD, path) : 0;

	if (r >= 0 && x->ignored)
		r = fanotify_mark(fd, flags | ignore, x->ignored, AT_FDCWD, path);
	return r < 0 ? error_set(e, errno, "pid %d fd %d: marking %s again for its fanotify", m->pid, m->fd,
				 path)
		     : 0;
}

static int fanotify_late(struct rebuild *r, const FileDescription *m, int fd, struct error *e)
{
	const Ferry__Fanotify *x = m->fanotify;
	int ret = 0;

	for (size_t i = 0; i < x->n_marks && ret >= 0; i++) {
		cleanup_free char *path = files_host_path(r, x->marks[i]->path);

		ret = mark_again(m, x->marks[i], path, fd, e);
	}
	return ret;
}

const struct fd_type fd_fanotify = {
	.name = "fanotify",
	.kind = FILE_KIND(FANOTIFY),
	.match = fanotify_match,
	.capture = fanotify_capture,
	.check = fanotify_check,
	.open = fanotify_open,
	.late = fanotify_late,
};
