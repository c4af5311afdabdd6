/* SPDX-License-Identifier: Apache-2.0 */
#include <linux/aio_abi.h>
#include <sys/syscall.h>

#include "zdtm.h"

int main(int argc, char **argv)
{
	aio_context_t context = 0;

	test_init(argc, argv);
	if (syscall(SYS_io_setup, 8, &context) < 0)
		test_skip("no asynchronous I/O: %s", strerror(errno));
	test_ready();
	test_wait();
	MUST(syscall(SYS_io_destroy, context));
	test_pass();
}
