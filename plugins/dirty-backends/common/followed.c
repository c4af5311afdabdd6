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

#include "pages.h"

int target_identity(pid_t pid, struct identity *ret)
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

int target_open(pid_t pid, const char *file, int flags, char *why, size_t why_size)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/%s", pid, file);
	int fd = open(path, flags | O_CLOEXEC);

	return fd < 0 ? fail(why, why_size, errno == ENOENT ? ESRCH : errno, "cannot open %s", path) : fd;
}

int target_check(pid_t pid, int pagemap, const struct identity *was, char *why, size_t why_size)
{
	struct identity now;

	if (!pages_alive(pagemap))
		return refuse(why, why_size, ESRCH, "process %d has exited, or has called exec", pid);
	int r = target_identity(pid, &now);

	if (r < 0)
		return fail(why, why_size, -r, "cannot read /proc/%d/stat", pid);
	if (memcmp(&now, was, sizeof(now)) != 0)
		return refuse(why, why_size, ESRCH, "process %d has called exec", pid);
	return 0;
}
