/* SPDX-License-Identifier: Apache-2.0 */
/* A watch of a file that is deleted but still open. */
#include <fcntl.h>
#include <sys/inotify.h>

#include "zdtm.h"

int main(int argc, char **argv)
{
	struct {
		struct inotify_event e;
	} x;
	int in, fd;

	test_init(argc, argv);
	in = MUST(inotify_init());
	fd = MUST(open(test_path("file"), O_CREAT | O_RDWR, 0600));
	MUST(inotify_add_watch(in, test_path("file"), IN_MODIFY));
	MUST(unlink(test_path("file")));
	test_ready();
	test_wait();
	CHECK_EQ(write(fd, "x", 1), 1);
	CHECK_EQ(read(in, &x, sizeof(x)), sizeof(x));
	CHECK_EQ(x.e.mask, IN_MODIFY);
	test_pass();
}
