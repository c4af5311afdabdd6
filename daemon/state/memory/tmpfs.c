/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Named files on tmpfs that are mapped shared: POSIX shared memory, and what is used like it.
 *
 * Other mapped files must be at the destination, where a shared file system or a copy has them.  A file on
 * tmpfs lives in the memory of one machine, and is memory of the program: so its content travels.  Where the
 * very same file is (a restore on the machine of the dump; a file system that both sides see), that is used
 * as it is.  Another file of that name is refused.  The new file gets its name when all is there.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>

#include "base/util.h"
#include "state/memory/named.h"

#ifndef RENAME_NOREPLACE
#define RENAME_NOREPLACE 1
#endif

bool tmpfs_travels(const char *link)
{
	struct statfs fs;

	return statfs(link, &fs) == 0 && (fs.f_type == TMPFS_MAGIC || fs.f_type == RAMFS_MAGIC);
}

static int64_t ns_of(const struct statx_timestamp *t)
{
	return t->tv_sec * 1000000000ll + t->tv_nsec;
}

static char *boot_id(void)
{
	char *text = NULL;

	if (read_file("/proc/sys/kernel/random/boot_id", &text) < 0)
		return xstrdup("");
	text[strcspn(text, "\n")] = 0;
	return text;
}

static int look(int fd, const char *path, Ferry__FileIdentity *ret)
{
	struct statx sx;

	if (statx(fd, fd < 0 ? path : "", fd < 0 ? AT_SYMLINK_NOFOLLOW : AT_EMPTY_PATH,
		  STATX_BASIC_STATS | STATX_BTIME, &sx) < 0)
		return -errno;
	ferry__file_identity__init(ret);
	ret->dev = makedev(sx.stx_dev_major, sx.stx_dev_minor);
	ret->ino = sx.stx_ino;
	ret->btime_ns = sx.stx_mask & STATX_BTIME ? ns_of(&sx.stx_btime) : 0;
	ret->mtime_ns = ns_of(&sx.stx_mtime);
	ret->atime_ns = ns_of(&sx.stx_atime);
	return S_ISREG(sx.stx_mode) ? 0 : -EINVAL;
}

int tmpfs_note(struct capture *c, struct memory_object *o, struct error *e)
{
	char comm[16];

	if (o->file)
		return 0;
	o->file = xmalloc(sizeof(*o->file));
	int r = look(o->fd, NULL, o->file);

	if (r < 0) {
		free(TAKE_PTR(o->file));
		return error_set(e, -r, "look at %s", o->name);
	}
	o->file->boot_id = boot_id();
	pid_t pid = memory_outside_mapper(c->tree, o->dev, o->ino, comm);

	o->file->outside = pid ? xasprintf("pid %d (%s)", pid, comm) : xstrdup("");
	return 0;
}

/* --- destination ------------------------------------------------------------------------------------ */

/* 1: the very file is here, 0: none, or -errno. */
static int find(const Ferry__Object *o, struct error *e)
{
	Ferry__FileIdentity here;

	if (!o->file)
		return error_say(e, EPROTO, "the image says nothing of file %s", o->name);
	int r = look(-1, o->name, &here);

	if (r == -ENOENT)
		return 0;
	if (r < 0)
		return error_set(e, -r, "look at %s, which the program maps", o->name);
	cleanup_free char *boot = boot_id();

	if (here.dev != o->file->dev || here.ino != o->file->ino || here.btime_ns != o->file->btime_ns ||
	    strcmp(boot, o->file->boot_id) != 0)
		return error_say(e, EEXIST,
				 "%s, which the program maps shared, is another file here; its content would "
				 "be in the way of the program's own",
				 o->name);
	struct stat st;

	if (stat(o->name, &st) < 0 || (uint64_t)st.st_size != o->size)
		return error_say(e, ESTALE,
				 "%s, which the program maps shared, has changed: its size differs", o->name);
	return 1;
}

int tmpfs_check(const Ferry__Object *o, struct error *e)
{
	int r = find(o, e);

	if (r != 0)
		return r < 0 ? r : 0;
	if (*o->file->outside)
		return error_say(
			e, ENOTSUP,
			"%s is missing here and cannot be made: %s, which is not in the tree, maps it "
			"shared as well",
			o->name, o->file->outside);
	cleanup_free char *dir = xstrdup(o->name);
	char *slash = strrchr(dir, '/');

	if (slash)
		slash[slash == dir] = 0;
	if (access(dir, W_OK | X_OK) < 0)
		return error_set(e, errno, "%s, which the program maps shared, cannot be made here", o->name);
	return 0;
}

static char *temporary_name(const Ferry__Object *o)
{
	const char *slash = strrchr(o->name, '/');
	int dir = slash ? (int)(slash - o->name) + 1 : 0;

	return xasprintf("%.*s.ferry-%d-%llu", dir, o->name, getpid(), (unsigned long long)o->id);
}

int tmpfs_create(const Ferry__Object *o, int *ret_fd, struct error *e)
{
	int found = find(o, e);

	if (found < 0)
		return found;
	cleanup_free char *name = found ? xstrdup(o->name) : temporary_name(o);
	cleanup_close int fd =
		open(name, O_RDWR | O_CLOEXEC | O_NOFOLLOW | (found ? 0 : O_CREAT | O_EXCL), 0600);

	if (fd < 0)
		return error_set(e, errno, "%s %s", found ? "open" : "make", name);
	if (!found && ftruncate(fd, o->size) < 0) {
		int err = errno;

		unlink(name);
		return error_set(e, err, "set the size of %s to %llu", name, (unsigned long long)o->size);
	}
	*ret_fd = TAKE_FD(fd);
	return found ? OBJECT_SAME : OBJECT_MADE;
}

static bool is_name_of(const char *name, int fd)
{
	struct stat a, b;

	return lstat(name, &a) == 0 && fstat(fd, &b) == 0 && a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

int tmpfs_finish(const Ferry__Object *o, int fd, struct error *e)
{
	cleanup_free char *name = temporary_name(o);
	struct timespec times[2] = {{o->file->atime_ns / 1000000000, o->file->atime_ns % 1000000000},
				    {o->file->mtime_ns / 1000000000, o->file->mtime_ns % 1000000000}};

	if (!is_name_of(name, fd))
		return 0; /* found, not made */
	if (ftruncate(fd, o->size) < 0 || fchown(fd, o->uid, o->gid) < 0 || fchmod(fd, o->mode) < 0)
		return error_set(e, errno, "set size, owner and mode of %s", name);
	futimens(fd, times);
	if (renameat2(AT_FDCWD, name, AT_FDCWD, o->name, RENAME_NOREPLACE) < 0)
		return error_set(e, errno, "give %s its name %s", name, o->name);
	return 0;
}

void tmpfs_discard(const Ferry__Object *o, int fd)
{
	cleanup_free char *name = temporary_name(o);

	if (is_name_of(name, fd))
		unlink(name);
	else if (is_name_of(o->name, fd))
		unlink(o->name);
}
