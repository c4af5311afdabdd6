/* SPDX-License-Identifier: Apache-2.0 */
/* Opening and closing files again for the restore is not reported to who watches them. */
#include <fcntl.h>
#include <poll.h>
#include <sys/inotify.h>
#include <sys/stat.h>

#include "zdtm.h"

int main(int argc, char **argv)
{
	struct pollfd p = {.events = POLLIN};
	char buf[512];

	test_init(argc, argv);
	MUST(mkdir(test_path("dir"), 0700));
	MUST(open(test_path("dir"), O_RDONLY | O_DIRECTORY));
	MUST(open(test_path("dir/file"), O_RDWR | O_CREAT, 0600));
	MUST(mkfifo(test_path("dir/fifo"), 0600));
	MUST(open(test_path("dir/fifo"), O_RDWR));
	MUST(open(test_path("dir/gone"), O_RDWR | O_CREAT, 0600));
	MUST(unlink(test_path("dir/gone")));
	p.fd = MUST(inotify_init1(IN_NONBLOCK));
	MUST(inotify_add_watch(p.fd, test_path("dir"), IN_ALL_EVENTS));
	MUST(inotify_add_watch(p.fd, test_path("dir/file"), IN_ALL_EVENTS));
	test_ready();
	test_wait();
	if (MUST(poll(&p, 1, 0))) {
		MUST(read(p.fd, buf, sizeof(buf)));
		test_fail("the restore is reported: 0x%x", ((struct inotify_event *)buf)->mask);
	}
	close(MUST(open(test_path("dir/file"), O_RDONLY)));
	CHECK(MUST(poll(&p, 1, 10000)) == 1, "nothing is reported");
	test_pass();
}
