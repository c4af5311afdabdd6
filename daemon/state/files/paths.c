/* SPDX-License-Identifier: Apache-2.0 */
/* Names of files, at both ends. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "base/util.h"
#include "state/files/files.h"

#define DELETED " (deleted)"

bool files_marked_deleted(const char *link)
{
	size_t n = strlen(link), k = strlen(DELETED);

	return n > k && !strcmp(link + n - k, DELETED);
}

char *files_strip_deleted(const char *link)
{
	char *s = xstrdup(link);

	if (files_marked_deleted(s))
		s[strlen(s) - strlen(DELETED)] = 0;
	return s;
}

int files_need_name(const struct fd_facts *f, const char *what, struct error *e)
{
	if (f->path_ok)
		return 0;
	if (!strncmp(f->link, "/proc/", 6))
		return error_say(
			e, ENOTSUP,
			"pid %d fd %d: %s %s is of a process that has ended, or cannot be reached by "
			"this path from here",
			f->pid, f->fd, what, f->link);
	if (f->link[0] != '/')
		return error_say(e, ENOTSUP, "pid %d fd %d: %s %s cannot be reached by a path from here",
				 f->pid, f->fd, what, f->link);
	if (f->st.st_nlink == 0)
		return error_say(e, ENOTSUP,
				 "pid %d fd %d: %s %s was deleted, which is supported for regular files only",
				 f->pid, f->fd, what, f->link);
	if (files_marked_deleted(f->link))
		return error_say(e, ENOTSUP,
				 "pid %d fd %d: %s %s has lost this name, but has another one that cannot be "
				 "found out "
				 "(inode %llu, %llu links): give it its old name back",
				 f->pid, f->fd, what, f->link, (unsigned long long)f->st.st_ino,
				 (unsigned long long)f->st.st_nlink);
	return error_say(e, ENOTSUP,
			 "pid %d fd %d: %s %s is not what this path leads to here (another mount namespace?)",
			 f->pid, f->fd, what, f->link);
}

char *files_host_path(const struct rebuild *r, const char *path)
{
	const char *root = r->options && r->options->root ? r->options->root : "";
	size_t n = strlen(root);

	while (n && root[n - 1] == '/')
		n--;
	return xasprintf("%.*s%s", (int)n, root, path);
}

char *files_temporary_name(struct rebuild *r, const char *path, unsigned attempt)
{
	struct files_rebuild *f = files_rebuild_of(r);

	if (attempt == 0)
		return files_host_path(r, path);
	if (attempt > 2)
		return NULL;
	cleanup_free char *host = files_host_path(r, attempt == 1 ? path : "/tmp/ferry");

	return xasprintf("%s.%d.%u", host, getpid(), f->n_temporary++);
}

int files_open_flags(int flags)
{
	if ((flags & O_TMPFILE) == O_TMPFILE)
		flags &= ~O_TMPFILE;
	if (flags & O_PATH)
		return (flags & (O_PATH | O_DIRECTORY | O_NOFOLLOW)) | O_CLOEXEC;
	return (flags & ~(O_CREAT | O_EXCL | O_TRUNC | O_ASYNC)) | O_CLOEXEC | O_NOCTTY;
}
