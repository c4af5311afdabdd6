/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writes that no page table sees.
 *
 * A device that was given pages before a round protected them (a direct read in flight) writes them without a
 * fault, and no later round reports it.  So a process with a file open for direct I/O is followed in rounds
 * like any other, but at the freeze, when nothing of the kind is in flight any more, all of its memory is
 * compared with what was sent.
 *
 * When to look: after a round has protected the pages, before it reads them.  A read that was in flight at
 * the moment of protecting either still is when we look, and then its descriptor is open and is found; or it
 * has ended, and then what it wrote is there when the pages are read.
 *
 * A request of asynchronous I/O outlives its descriptor, so these are asked for, too.
 *
 * Buffered I/O copies through the page tables and is safe; but some file systems read every file in this way,
 * as their servers put the data into the pages of the caller.
 *
 * Pages pinned for long (VmPin) are those of buffers registered with an io_uring, which fdinfo tells: they
 * are treated in the same way; or they belong to descriptors that are refused (an RDMA device).  Pins without
 * such a descriptor are those of an io_uring that has none, and could not be made anew.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <time.h>

#include "base/util.h"
#include "procfs/procfs.h"
#include "state/memory/memory.h"

#define RING_TRIES    200
#define RING_PAUSE_NS 50000

static bool reads_directly(const char *type)
{
	static const char *const types[] = {"fuse", "fuseblk", "virtiofs", "9p", "cifs", "smb3"};

	for (size_t i = 0; i < ARRAY_SIZE(types); i++)
		if (!strcmp(type, types[i]))
			return true;
	return !strncmp(type, "fuse.", 5);
}

/* Is mount @id one of those? @mountinfo: lines of "id parent major:minor root point options... - type ...".
 */
static bool is_direct_mount(const char *mountinfo, uint64_t id)
{
	for (const char *line = mountinfo; line && *line; line = strchr(line, '\n') + 1) {
		const char *end = strchr(line, '\n'), *dash = strstr(line, " - ");
		char type[32];

		if (!end)
			return false;
		if (strtoull(line, NULL, 10) == id)
			return dash && dash < end && sscanf(dash, " - %31s", type) == 1 &&
			       reads_directly(type);
	}
	return false;
}

bool memory_has_fixed_buffers(pid_t pid, int fd)
{
	cleanup_free char *path = xasprintf("/proc/%d/fdinfo/%d", pid, fd), *text = NULL;
	uint64_t n = 0;

	/* While it is in use fdinfo shows nothing of it. */
	for (int i = 0; i < RING_TRIES; i++) {
		free(TAKE_PTR(text));
		if (read_file(path, &text) < 0)
			return false;
		if (proc_field_u64(text, "UserBufs", 10, &n))
			return n;
		nanosleep(&(struct timespec){.tv_nsec = RING_PAUSE_NS}, NULL);
	}
	return true;
}

/* Pages that a descriptor tells of are looked after like those of direct I/O. */
static bool has_fixed_buffers(pid_t pid)
{
	cleanup_free int *fds = NULL;
	struct error ignore = ERROR_INIT;
	size_t n = 0;
	bool found = false;

	if (proc_fds(pid, &fds, &n, &ignore) < 0)
		return false;
	for (size_t i = 0; i < n && !found; i++) {
		cleanup_free char *link = xasprintf("/proc/%d/fd/%d", pid, fds[i]), *name = NULL;

		found = readlink_at(AT_FDCWD, link, &name) >= 0 && !strcmp(name, "anon_inode:[io_uring]") &&
			memory_has_fixed_buffers(pid, fds[i]);
	}
	return found;
}

static bool is_direct(pid_t pid, int fd, char **mountinfo)
{
	cleanup_free char *link = xasprintf("/proc/%d/fd/%d", pid, fd), *name = NULL, *text = NULL;
	uint64_t flags, mount;

	/* A pipe in packet mode has the flag too, so do sockets have none: only names are looked at. */
	if (readlink_at(AT_FDCWD, link, &name) < 0)
		return false;
	if (!strcmp(name, "anon_inode:[io_uring]"))
		return memory_has_fixed_buffers(pid, fd);
	if (name[0] != '/')
		return false;
	cleanup_free char *info = xasprintf("/proc/%d/fdinfo/%d", pid, fd);

	if (read_file(info, &text) < 0 || !proc_field_u64(text, "flags", 8, &flags) || (flags & O_PATH) ||
	    (flags & O_ACCMODE) == O_WRONLY)
		return false;
	if (flags & O_DIRECT)
		return true;
	if (!*mountinfo) {
		cleanup_free char *path = xasprintf("/proc/%d/mountinfo", pid);

		if (read_file(path, mountinfo) < 0)
			*mountinfo = xstrdup("");
	}
	return proc_field_u64(text, "mnt_id", 10, &mount) && is_direct_mount(*mountinfo, mount);
}

static bool has_direct_file(pid_t pid)
{
	cleanup_free int *fds = NULL;
	cleanup_free char *mountinfo = NULL;
	struct error ignore = ERROR_INIT;
	size_t n = 0;

	if (proc_fds(pid, &fds, &n, &ignore) < 0)
		return false;
	for (size_t i = 0; i < n; i++)
		if (is_direct(pid, fds[i], &mountinfo))
			return true;
	return false;
}

int memory_check_pins(struct process *p, struct error *e)
{
	struct proc_status st;
	struct error ignore = ERROR_INIT;

	if (proc_status_read(process_living(p), 0, &st, &ignore) < 0)
		return 0;
	uint64_t pinned = st.vm_pin_kb;

	proc_status_deinit(&st);
	if (!pinned || has_fixed_buffers(p->pid))
		return 0;
	return error_say(e, ENOTSUP,
			 "pid %d has %llu KiB of memory pinned for devices (buffers of an io_uring, be it "
			 "one without a "
			 "descriptor), which cannot be moved",
			 p->pid, (unsigned long long)pinned);
}

int memory_find_unseen_writes(struct process *p)
{
	struct memory_process *mp = p->data;

	forks_drop_written(mp);
	if (mp->unseen_writes)
		return 0;
	mp->unseen_writes = has_direct_file(process_living(p)) || aio_is_busy(mp);
	return mp->unseen_writes;
}
