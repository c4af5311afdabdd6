/* SPDX-License-Identifier: Apache-2.0 */
/* A file of /proc of a process that has ended. */
#include <fcntl.h>

#include "zdtm.h"

int main(int argc, char **argv)
{
	char path[64], c;
	pid_t child;
	int fd;

	test_init(argc, argv);
	child = test_fork();
	if (!child)
		_exit((test_sleep_ms(20), 2));
	snprintf(path, sizeof(path), "/proc/%d/stat", child);
	fd = MUST(open(path, O_RDONLY));
	test_reap(child, 2);
	test_ready();
	test_wait();
	CHECK(read(fd, &c, 1) == -1 && errno == ESRCH, "it can be read");
	test_pass();
}
