/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The process behind a session. An open pagemap stays with the memory it was opened for: after exit or exec
 * it ends at once, but a memory that vfork shares lives on when the child calls exec.  Another program lies
 * elsewhere.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "followed.h"

static int identify(pid_t pid, struct identity *ret)
{
	char path[64], text[1024];

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return errno == ENOENT ? -ESRCH : -errno;
	ssize_t n = read(fd, text, sizeof(text) - 1);

	close(fd);
	if (n <= 0)
		return -ESRCH;
	text[n] = 0;
	const char *p = strrchr(text, ')');

	for (int field = 2; p && field < 26; field++) /* startcode, endcode, startstack are 26 to 28 */
		p = strchr(p + 1, ' ');
	const char *end = p;

	for (int i = 0; end && i < 3; i++)
		end = strchr(end + 1, ' ');
	if (!end || (size_t)(end - p) >= sizeof(ret->text))
		return -EINVAL;
	memset(ret, 0, sizeof(*ret));
	memcpy(ret->text, p, (size_t)(end - p));
	return 0;
}

int followed_file(pid_t pid, const char *file, int flags, char *why, size_t why_size)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/%s", pid, file);
	int fd = open(path, flags | O_CLOEXEC);

	return fd < 0 ? fail(why, why_size, errno == ENOENT ? ESRCH : errno, "cannot open %s", path) : fd;
}

int followed_open(struct followed *f, pid_t pid, char *why, size_t why_size)
{
	*f = (struct followed){.pid = pid, .pagemap = -1};
	int r = identify(pid, &f->identity);

	if (r < 0)
		return fail(why, why_size, -r, "cannot read /proc/%d/stat", pid);
	f->pagemap = followed_file(pid, "pagemap", O_RDONLY, why, why_size);
	return f->pagemap < 0 ? f->pagemap : 0;
}

void followed_close(struct followed *f)
{
	if (f->pagemap >= 0)
		close(f->pagemap);
	ranges_free(&f->written);
	ranges_free(&f->present);
	ranges_free(&f->answer);
}

int followed_alive(const struct followed *f, char *why, size_t why_size)
{
	if (pages_alive(f->pagemap))
		return 0;
	return refuse(why, why_size, ESRCH, "process %d has exited, or has called exec", f->pid);
}

int followed_check(const struct followed *f, char *why, size_t why_size)
{
	struct identity now;
	int r = followed_alive(f, why, why_size);

	if (r < 0)
		return r;
	r = identify(f->pid, &now);
	if (r < 0)
		return fail(why, why_size, -r, "cannot read /proc/%d/stat", f->pid);
	if (memcmp(&now, &f->identity, sizeof(now)) != 0)
		return refuse(why, why_size, ESRCH, "process %d has called exec", f->pid);
	return 0;
}

ssize_t followed_answer(const struct followed *f, const struct dirty_vma *v, int r,
			const struct ranges *answer, const struct dirty_range **ret_ranges, char *why,
			size_t why_size)
{
	int gone = followed_alive(f, why, why_size);

	if (gone < 0)
		return gone;
	if (r == -EPERM)
		return refuse(why, why_size, EPERM, "%llx-%llx of process %d is no longer tracked",
			      (unsigned long long)v->start, (unsigned long long)v->end, f->pid);
	if (r < 0)
		return fail(why, why_size, -r, "cannot tell what was written in %llx-%llx of process %d",
			    (unsigned long long)v->start, (unsigned long long)v->end, f->pid);
	*ret_ranges = answer->v;
	return (ssize_t)answer->n;
}
