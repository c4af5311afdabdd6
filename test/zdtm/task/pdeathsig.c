/* SPDX-License-Identifier: Apache-2.0 */
/* The parent-death signal still comes, and orphans still go to the subreaper. */
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "zdtm.h"

int main(int argc, char **argv)
{
	volatile int *state;
	pid_t middle, inner;
	int status;

	test_init(argc, argv);
	state = test_shared_flags(2);
	MUST(prctl(PR_SET_CHILD_SUBREAPER, 1));
	middle = test_fork();
	if (!middle) {
		inner = test_fork();
		if (!inner) {
			MUST(prctl(PR_SET_PDEATHSIG, SIGUSR1));
			state[0] = getpid();
			for (;;)
				pause();
		}
		test_wait();
		_exit(6);
	}
	while (!state[0])
		test_sleep_ms(1);
	inner = state[0];
	test_ready();
	test_wait();
	test_reap(middle, 6);
	CHECK(waitpid(inner, &status, 0) == inner, "the orphan did not come to the subreaper");
	CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGUSR1, "the orphan ended with 0x%x", status);
	test_pass();
}
