/* SPDX-License-Identifier: Apache-2.0 */
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/wait.h>

#include "zdtm.h"

int main(int argc, char **argv)
{
	pid_t traced;
	int status;

	test_init(argc, argv);
	traced = test_fork();
	if (!traced) {
		test_wait();
		_exit(3);
	}
	MUST(ptrace(PTRACE_SEIZE, traced, 0, 0));
	test_ready();
	test_wait();
	CHECK(waitpid(traced, &status, __WALL) == traced && WIFEXITED(status) && WEXITSTATUS(status) == 3,
	      "status 0x%x", status);
	test_pass();
}
