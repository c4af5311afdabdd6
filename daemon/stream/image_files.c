/* SPDX-License-Identifier: Apache-2.0 */
#include "stream/image_files.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>

#include "base/util.h"
#include "stream/records.h"

static const char *const names[IMAGE_FILES] = {STATE_IMG, PAGEMAP_IMG, PAGES_IMG};
static const char *const parts[IMAGE_FILES] = {STATE_IMG ".part", PAGEMAP_IMG ".part", PAGES_IMG ".part"};

const char *image_file_name(enum image_file f)
{
	return names[f];
}

/* A .part file nobody holds a lock on was left by a killed writer. Called with the directory locked, so that
 * no writer is between creating and locking its own. */
static int remove_stale(int dirfd, enum image_file i, struct error *e)
{
	struct stat st;
	cleanup_close int fd = openat(dirfd, parts[i], O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);

	if (fd < 0 && errno == ENOENT)
		return 0;
	if (fd < 0)
		return error_set(e, errno, "%s", parts[i]);
	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
		return error_say(e, EEXIST, "%s is in the way and not a regular file", parts[i]);
	if (flock(fd, LOCK_EX | LOCK_NB) < 0 && errno == EWOULDBLOCK)
		return error_say(e, EBUSY, "%s: another dump is being written to this directory", parts[i]);
	if (unlinkat(dirfd, parts[i], 0) < 0)
		return error_set(e, errno, "%s: remove", parts[i]);
	return 0;
}

static int create(struct image_files *f, enum image_file i, struct error *e)
{
	struct stat st;

	if (fstatat(f->dirfd, names[i], &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(st.st_mode))
		return error_set(e, EISDIR, "%s", names[i]);
	int rc = remove_stale(f->dirfd, i, e);

	if (rc < 0)
		return rc;
	int fd = openat(f->dirfd, parts[i], O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);

	if (fd < 0)
		return error_set(e, errno, "%s: create", parts[i]);
	f->fd[i] = fd;
	flock(fd, LOCK_EX | LOCK_NB); /* a file system without locks only loses the check above */
	return 0;
}

int image_files_create(struct image_files *f, int dirfd, unsigned which, struct error *e)
{
	*f = (struct image_files){.dirfd = -1, .fd = {-1, -1, -1}};
	f->dirfd = openat(dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (f->dirfd < 0)
		return error_set(e, errno, "image directory");
	flock(f->dirfd, LOCK_EX);
	int rc = 0;

	for (int i = 0; i < IMAGE_FILES && rc == 0; i++)
		if (which & (1u << i))
			rc = create(f, i, e);
	flock(f->dirfd, LOCK_UN);
	if (rc < 0)
		image_files_deinit(f);
	return rc;
}

static int sync_files(struct image_files *f, struct error *e)
{
	for (int i = 0; i < IMAGE_FILES; i++)
		if (f->fd[i] >= 0 && fsync(f->fd[i]) < 0)
			return error_set(e, errno, "%s: sync", names[i]);
	return 0;
}

int image_files_commit(struct image_files *f, bool fast, struct error *e)
{
	int rc = fast ? 0 : sync_files(f, e);

	if (rc < 0)
		return rc;
	for (int i = IMAGE_STATE; i <= IMAGE_PAGEMAP; i++)
		if (f->fd[i] >= 0 && unlinkat(f->dirfd, names[i], 0) < 0 && errno != ENOENT)
			return error_set(e, errno, "%s: remove the older image", names[i]);
	for (int i = IMAGE_PAGES; i >= IMAGE_STATE; i--) {
		if (f->fd[i] < 0)
			continue;
		if (renameat(f->dirfd, parts[i], f->dirfd, names[i]) < 0)
			return error_set(e, errno, "%s: rename", parts[i]);
		close(TAKE_FD(f->fd[i]));
	}
	if (!fast && fsync(f->dirfd) < 0)
		return error_set(e, errno, "image directory: sync");
	return 0;
}

void image_files_deinit(struct image_files *f)
{
	for (int i = 0; i < IMAGE_FILES; i++) {
		if (f->fd[i] < 0)
			continue;
		unlinkat(f->dirfd, parts[i], 0);
		close(TAKE_FD(f->fd[i]));
	}
	if (f->dirfd >= 0)
		close(TAKE_FD(f->dirfd));
}

int image_open_file(int dirfd, enum image_file which, int *ret_fd, struct error *e)
{
	struct stat st;
	/* O_NONBLOCK: a FIFO must not hold us up. */
	cleanup_close int fd = openat(dirfd, names[which], O_RDONLY | O_NONBLOCK | O_CLOEXEC);

	if (fd < 0)
		return error_set(e, errno, "%s", names[which]);
	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
		return error_say(e, EBADMSG, "%s is not a regular file", names[which]);
	*ret_fd = TAKE_FD(fd);
	return 0;
}

int image_read_header(int dirfd, enum image_file which, struct stream_header *ret, struct error *e)
{
	struct record_in in;
	cleanup_close int fd = -1;
	int rc = image_open_file(dirfd, which, &fd, e);

	if (rc < 0)
		return rc;
	record_in_init(&in, fd, names[which], false);
	rc = record_in_header(&in, which == IMAGE_STATE ? WIRE_STATE : WIRE_PAGEMAP, ret, e);

	record_in_deinit(&in);
	return rc;
}

int image_open_parent(int dirfd, const char *parent, int *ret_fd, struct error *e)
{
	int fd = openat(dirfd, parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0)
		return error_set(e, errno, "parent image directory %s", parent);
	*ret_fd = fd;
	return 0;
}

int image_set_parent(int dirfd, const char *parent, struct stream_header *h, struct error *e)
{
	struct stream_header theirs;
	cleanup_close int fd = -1;
	struct stat a, b;

	if (!*parent || strlen(parent) > WIRE_MAX_PARENT)
		return error_say(e, ENAMETOOLONG, "path of the parent image directory of %zu bytes",
				 strlen(parent));
	int rc = image_open_parent(dirfd, parent, &fd, e);

	if (rc < 0)
		return rc;
	if (fstat(fd, &a) < 0 || fstatat(dirfd, ".", &b, 0) < 0)
		return error_set(e, errno, "parent image directory %s", parent);
	if (a.st_dev == b.st_dev && a.st_ino == b.st_ino)
		return error_say(e, ELOOP, "parent image directory %s is the image directory itself", parent);
	rc = image_read_header(fd, IMAGE_PAGEMAP, &theirs, e);
	if (rc < 0)
		return error_prefix(e, "parent image directory %s", parent);
	snprintf(h->parent, sizeof(h->parent), "%s", parent);
	memcpy(h->parent_id, theirs.id, sizeof(h->parent_id));
	return 0;
}
