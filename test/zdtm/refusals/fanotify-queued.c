/* SPDX-License-Identifier: Apache-2.0 */
/* Events that nobody reads: they cannot be looked at without taking them away. */
#include <fcntl.h>
#include <sys/fanotify.h>
#include <sys/stat.h>

#include "zdtm.h"

int main(int argc, char **argv)
{
	char buf[512];
	int fd;

	test_init(argc, argv);
	fd = fanotify_init(FAN_CLASS_NOTIF, O_RDONLY);
	if (fd < 0)
		test_skip("no fanotify: %s", strerror(errno));
	MUST(mkdir(test_path("dir"), 0700));
	MUST(fanotify_mark(fd, FAN_MARK_ADD, FAN_CLOSE_WRITE | FAN_EVENT_ON_CHILD, AT_FDCWD,
			   test_path("dir")));
	close(MUST(open(test_path("dir/new"), O_CREAT | O_WRONLY, 0600)));
	test_ready();
	test_wait();
	CHECK(read(fd, buf, sizeof(buf)) > 0, "the event is lost");
	test_pass();
}
