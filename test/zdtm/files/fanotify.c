/* SPDX-License-Identifier: Apache-2.0 */
/* fanotify: marks of a directory, of a mount and of a file system, one that ignores, with descriptors and
 * with file handles; the move itself is not reported. */
#include <fcntl.h>
#include <poll.h>
#include <sys/fanotify.h>
#include <sys/stat.h>

#include "zdtm.h"

static int make(unsigned flags)
{
	int fd = fanotify_init(flags | FAN_NONBLOCK, O_RDONLY | O_LARGEFILE | O_CLOEXEC);

	if (fd < 0)
		test_skip("no fanotify: %s", strerror(errno));
	return fd;
}

static void mark(int fd, unsigned flags, uint64_t mask, const char *name)
{
	MUST(fanotify_mark(fd, FAN_MARK_ADD | flags, mask, AT_FDCWD, test_path(name)));
}

static void expect_none(int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};

	CHECK(MUST(poll(&p, 1, 0)) == 0, "fd %d has an event that nobody asked for", fd);
}

/* One event of this process, of the file @name (below the directory of the test). */
static void expect(int fd, uint64_t mask, const char *name)
{
	union {
		struct fanotify_event_metadata e;
		char room[512];
	} x;
	struct pollfd p = {.fd = fd, .events = POLLIN};
	struct stat wanted, st;

	CHECK(poll(&p, 1, 10000) == 1, "fd %d has no event 0x%llx", fd, (unsigned long long)mask);
	CHECK(MUST(read(fd, &x, sizeof(x))) >= (ssize_t)sizeof(x.e), "a short event");
	CHECK_EQ(x.e.event_len, x.e.fd >= 0 ? sizeof(x.e) : x.e.event_len);
	CHECK_EQ(x.e.mask, mask);
	CHECK_EQ(x.e.pid, getpid());
	if (x.e.fd < 0) {
		const struct fanotify_event_info_fid *info = (const void *)(&x.e + 1);
		const struct file_handle *h = (const void *)info->handle;
		const char *got = (const char *)h->f_handle + h->handle_bytes;

		CHECK_EQ(info->hdr.info_type, FAN_EVENT_INFO_TYPE_DFID_NAME);
		CHECK(!strcmp(got, strrchr(name, '/') + 1), "the event names %s, not %s", got, name);
		return;
	}
	MUST(stat(test_path(name), &wanted));
	MUST(fstat(x.e.fd, &st));
	CHECK(st.st_ino == wanted.st_ino && st.st_dev == wanted.st_dev, "the event is not of %s", name);
	CHECK(fcntl(x.e.fd, F_GETFD) & FD_CLOEXEC, "the flags of descriptors are lost");
	close(x.e.fd);
}

static void touch(const char *name)
{
	int fd = MUST(open(test_path(name), O_WRONLY | O_CREAT, 0600));

	CHECK_EQ(write(fd, "x", 1), 1);
	close(fd);
}

int main(int argc, char **argv)
{
	int all[4], *dir = &all[0], *names = &all[1], *mount = &all[2], *system = &all[3];

	test_init(argc, argv);
	MUST(mkdir(test_path("own/dir"), 0700));
	touch("own/dir/quiet");
	*dir = make(FAN_CLASS_NOTIF | FAN_UNLIMITED_MARKS);
	*names = make(FAN_CLASS_NOTIF | FAN_REPORT_DFID_NAME);
	*mount = make(FAN_CLASS_NOTIF | FAN_UNLIMITED_QUEUE);
	*system = make(FAN_CLASS_NOTIF | FAN_CLOEXEC);
	mark(*dir, 0, FAN_CLOSE_WRITE | FAN_EVENT_ON_CHILD, "own/dir");
	mark(*dir, FAN_MARK_IGNORED_MASK | FAN_MARK_IGNORED_SURV_MODIFY, FAN_CLOSE_WRITE, "own/dir/quiet");
	mark(*names, FAN_MARK_ONLYDIR, FAN_CREATE | FAN_ONDIR, "own/dir");
	mark(*mount, FAN_MARK_MOUNT, FAN_MODIFY, "own");
	mark(*system, FAN_MARK_FILESYSTEM, FAN_CLOSE_WRITE, "own");
	for (int i = 0; i < 4; i++)
		expect_none(all[i]);
	test_ready();
	test_wait();
	for (int i = 0; i < 4; i++)
		expect_none(all[i]);
	CHECK(fcntl(*dir, F_GETFL) & O_NONBLOCK, "flags");
	CHECK(fcntl(*system, F_GETFD) & FD_CLOEXEC && !(fcntl(*dir, F_GETFD) & FD_CLOEXEC), "FD_CLOEXEC");
	touch("own/dir/new");
	expect(*dir, FAN_CLOSE_WRITE, "own/dir/new");
	expect(*names, FAN_CREATE, "own/dir/new");
	expect(*mount, FAN_MODIFY, "own/dir/new");
	expect(*system, FAN_CLOSE_WRITE, "own/dir/new");
	touch("own/dir/quiet");
	expect(*mount, FAN_MODIFY, "own/dir/quiet");
	expect(*system, FAN_CLOSE_WRITE, "own/dir/quiet");
	touch("own/elsewhere");
	expect(*mount, FAN_MODIFY, "own/elsewhere");
	expect(*system, FAN_CLOSE_WRITE, "own/elsewhere");
	MUST(mkdir(test_path("own/dir/sub"), 0700));
	expect(*names, FAN_CREATE | FAN_ONDIR, "own/dir/sub");
	touch("outside");
	for (int i = 0; i < 4; i++)
		expect_none(all[i]);
	test_pass();
}
