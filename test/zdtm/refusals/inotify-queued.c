/* SPDX-License-Identifier: Apache-2.0 */
/* Events that nobody has read: they cannot be looked at without taking them away. */
#include <fcntl.h>
#include <sys/inotify.h>

#include "zdtm.h"

int main(int argc, char **argv)
{
	char buf[512];
	int in;

	test_init(argc, argv);
	in = MUST(inotify_init());
	MUST(inotify_add_watch(in, test_path("."), IN_CREATE));
	close(MUST(open(test_path("new"), O_CREAT | O_RDONLY, 0600)));
	test_ready();
	test_wait();
	CHECK(read(in, buf, sizeof(buf)) > 0, "the event is lost");
	test_pass();
}
