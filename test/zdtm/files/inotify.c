/* SPDX-License-Identifier: Apache-2.0 */
/* inotify: watches keep numbers, masks and files; the move itself is not reported; numbers are not reused. */
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <sys/inotify.h>
#include <sys/stat.h>

#include "zdtm.h"

static void expect(int fd, int wd, uint32_t mask, const char *name)
{
	union {
		struct inotify_event e;
		char room[sizeof(struct inotify_event) + NAME_MAX + 1];
	} x;
	struct pollfd p = {.fd = fd, .events = POLLIN};

	CHECK(poll(&p, 1, 10000) == 1, "no event 0x%x of watch %d", mask, wd);
	memset(&x, 0, sizeof(x));
	MUST(read(fd, &x, sizeof(struct inotify_event) + (name ? 16 : 0)));
	CHECK_EQ(x.e.wd, wd);
	CHECK_EQ(x.e.mask, mask);
	CHECK(!strcmp(x.e.len ? x.e.name : "", name ? name : ""), "the event names %s, not %s", x.e.name,
	      name);
}

static bool has_events(int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};

	return MUST(poll(&p, 1, 0)) == 1;
}

static void touch(const char *name)
{
	int fd = MUST(open(test_path(name), O_WRONLY | O_CREAT, 0600));

	CHECK_EQ(write(fd, "x", 1), 1);
	close(fd);
}

int main(int argc, char **argv)
{
	int in, other, open_dir, dir, file, once, link, gone, wd;

	test_init(argc, argv);
	MUST(mkdir(test_path("dir"), 0700));
	MUST(mkdir(test_path("dir/old"), 0700));
	touch("dir/file");
	touch("dir/once");
	MUST(symlink("nowhere", test_path("dir/link")));
	in = MUST(inotify_init1(IN_NONBLOCK | IN_CLOEXEC));
	other = MUST(inotify_init1(0));
	dir = MUST(inotify_add_watch(in, test_path("dir/old"), IN_CREATE | IN_DELETE | IN_ONLYDIR));
	gone = MUST(inotify_add_watch(in, test_path("dir"), IN_CREATE));
	file = MUST(inotify_add_watch(in, test_path("dir/file"), IN_MODIFY | IN_OPEN | IN_CLOSE_WRITE));
	MUST(inotify_rm_watch(in, gone));
	expect(in, gone, IN_IGNORED, NULL);
	once = MUST(inotify_add_watch(in, test_path("dir/once"), IN_MODIFY | IN_ONESHOT));
	link = MUST(
		inotify_add_watch(other, test_path("dir/link"), IN_ATTRIB | IN_DELETE_SELF | IN_DONT_FOLLOW));
	/* Not the closing at the source, which is a true event. */
	wd = MUST(inotify_add_watch(other, test_path("dir/old"), IN_ALL_EVENTS & ~IN_CLOSE_NOWRITE));
	MUST(rename(test_path("dir/old"), test_path("dir/new dir")));
	expect(other, wd, IN_MOVE_SELF, NULL);
	open_dir = MUST(open(test_path("dir/new dir"), O_RDONLY | O_DIRECTORY));
	expect(other, wd, IN_OPEN | IN_ISDIR, NULL);
	CHECK(fcntl(in, F_GETFL) & O_NONBLOCK, "flags");
	test_ready();
	test_wait();
	CHECK(!has_events(in) && !has_events(other), "the move is reported");
	CHECK(fcntl(in, F_GETFL) & O_NONBLOCK, "flags");
	touch("dir/new dir/a");
	expect(in, dir, IN_CREATE, "a");
	expect(other, wd, IN_CREATE, "a");
	expect(other, wd, IN_OPEN, "a");
	expect(other, wd, IN_MODIFY, "a");
	expect(other, wd, IN_CLOSE_WRITE, "a");
	touch("dir/file");
	expect(in, file, IN_OPEN, NULL);
	expect(in, file, IN_MODIFY, NULL);
	expect(in, file, IN_CLOSE_WRITE, NULL);
	touch("dir/once");
	expect(in, once, IN_MODIFY, NULL);
	expect(in, once, IN_IGNORED, NULL);
	touch("dir/once");
	MUST(unlink(test_path("dir/link")));
	expect(other, link, IN_ATTRIB, NULL);
	expect(other, link, IN_DELETE_SELF, NULL);
	expect(other, link, IN_IGNORED, NULL);
	touch("dir/unwatched");
	CHECK(!has_events(in) && !has_events(other), "events that nobody asked for");
	wd = MUST(inotify_add_watch(in, test_path("dir"), IN_CREATE));
	CHECK(wd != dir && wd != file && wd != once && wd != gone, "number %d is given out again", wd);
	touch("dir/more");
	expect(in, wd, IN_CREATE, "more");
	close(open_dir);
	test_pass();
}
