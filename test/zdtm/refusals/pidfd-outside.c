/* SPDX-License-Identifier: Apache-2.0 */
/* A descriptor of a process that is not in the tree. */
#include <sys/syscall.h>

#include "zdtm.h"

int main(int argc, char **argv)
{
	test_init(argc, argv);
	MUST(syscall(SYS_pidfd_open, 1, 0));
	test_ready();
	test_wait();
	test_pass();
}
