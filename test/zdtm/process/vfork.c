/* SPDX-License-Identifier: Apache-2.0 */
/* A parent that waits in vfork cannot be stopped for as long as the child shares its memory. */
#include <sys/wait.h>

#include "zdtm.h"

int main(int argc, char **argv)
{
	pid_t pid;

	test_init(argc, argv);
	pid = vfork();
	if (!pid) {
		test_ready();
		test_wait();
		_exit(5);
	}
	test_reap(pid, 5);
	test_pass();
}
