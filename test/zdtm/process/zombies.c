/* SPDX-License-Identifier: Apache-2.0 */
#include <signal.h>
#include <sys/wait.h>

#include "zdtm.h"

static void reap(pid_t pid, int code, int status)
{
	siginfo_t info = {0};

	MUST(waitid(P_PID, pid, &info, WEXITED));
	CHECK_EQ(info.si_pid, pid);
	CHECK_EQ(info.si_code, code);
	CHECK_EQ(info.si_status, status);
	CHECK_EQ(info.si_signo, SIGCHLD);
}

int main(int argc, char **argv)
{
	pid_t exited, killed, grouped, named;

	test_init(argc, argv);
	exited = test_fork();
	if (!exited)
		_exit(42);
	killed = test_fork();
	if (!killed)
		for (;;)
			pause();
	MUST(kill(killed, SIGKILL));
	grouped = test_fork();
	if (!grouped) {
		setpgid(0, 0);
		raise(SIGTERM);
	}
	named = test_fork();
	if (!named) {
		setsid();
		_exit(0);
	}
	test_wait_state(exited, "Z");
	test_wait_state(killed, "Z");
	test_wait_state(grouped, "Z");
	test_wait_state(named, "Z");
	test_ready();
	test_wait();
	CHECK_EQ(getpgid(grouped), grouped);
	CHECK_EQ(getsid(named), named);
	reap(killed, CLD_KILLED, SIGKILL);
	reap(exited, CLD_EXITED, 42);
	reap(grouped, CLD_KILLED, SIGTERM);
	reap(named, CLD_EXITED, 0);
	CHECK(waitpid(-1, NULL, WNOHANG) == -1 && errno == ECHILD, "a child too many");
	test_pass();
}
