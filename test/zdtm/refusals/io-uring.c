/* SPDX-License-Identifier: Apache-2.0 */
#include <linux/io_uring.h>
#include <sys/syscall.h>

#include "zdtm.h"

int main(int argc, char **argv)
{
	struct io_uring_params p = {0};
	int fd;

	test_init(argc, argv);
	fd = syscall(SYS_io_uring_setup, 4, &p);
	if (fd < 0)
		test_skip("no io_uring: %s", strerror(errno));
	test_ready();
	test_wait();
	MUST(syscall(SYS_io_uring_enter, fd, 0, 0, 0, NULL, 0));
	test_pass();
}
