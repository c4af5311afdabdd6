/* SPDX-License-Identifier: Apache-2.0 */
/* A child in a network namespace of its own. */
#include <sched.h>

#include "zdtm.h"

int main(int argc, char **argv)
{
	volatile int *up;
	pid_t child;

	test_init(argc, argv);
	up = test_shared_flags(1);
	child = test_fork();
	if (!child) {
		MUST(unshare(CLONE_NEWNET));
		up[0] = 1;
		test_wait();
		_exit(2);
	}
	while (!up[0])
		test_sleep_ms(1);
	test_ready();
	test_wait();
	test_reap(child, 2);
	test_pass();
}
