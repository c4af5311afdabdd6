/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A reader of inotify that is late: an event waits to be read when it is stopped.  That it was stopped it
 * sees by the end of its wait, and then it reads the event, a moment later; or after a while, as it can be
 * stopped when it does not wait.  After the first time it makes another event: tracking its memory stops it,
 * too.
 */
#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/inotify.h>
#include <sys/stat.h>

#include "zdtm.h"

#define TURNS 15 /* of 20 ms */

static int in, made;

static void make_event(void)
{
	char name[32];

	snprintf(name, sizeof(name), "dir/file%d", made++);
	close(MUST(open(test_path(name), O_CREAT | O_RDONLY, 0600)));
}

static void read_event(int number)
{
	union {
		struct inotify_event e;
		char room[sizeof(struct inotify_event) + 16];
	} x;
	char name[32];

	snprintf(name, sizeof(name), "file%d", number);
	memset(&x, 0, sizeof(x));
	CHECK_EQ(MUST(read(in, &x, sizeof(x))), sizeof(x));
	CHECK_EQ(x.e.mask, IN_CREATE);
	CHECK(!strcmp(x.e.name, name), "the event names %s, not %s", x.e.name, name);
}

int main(int argc, char **argv)
{
	struct epoll_event none;
	unsigned turns = 0;
	int epoll, done = 0;
	bool again = true;

	test_init(argc, argv);
	MUST(mkdir(test_path("dir"), 0700));
	in = MUST(inotify_init1(IN_NONBLOCK));
	epoll = MUST(epoll_create1(0));
	MUST(inotify_add_watch(in, test_path("dir"), IN_CREATE));
	make_event();
	test_ready();
	while (test_waiting()) {
		bool stopped = epoll_wait(epoll, &none, 1, 20) < 0;

		CHECK(!stopped || errno == EINTR, "epoll_wait");
		if (done == made || (!stopped && turns++ < TURNS))
			continue;
		test_sleep_ms(10);
		read_event(done++);
		turns = 0;
		if (stopped && again) {
			again = false;
			make_event();
		}
	}
	while (done < made)
		read_event(done++);
	errno = 0;
	CHECK(read(in, &none, sizeof(none)) < 0 && errno == EAGAIN, "an event too many");
	make_event();
	read_event(done);
	test_pass();
}
