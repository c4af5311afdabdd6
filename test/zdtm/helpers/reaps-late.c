/* SPDX-License-Identifier: Apache-2.0 */
/*
 * reaps-late MILLISECONDS CMD...: starts CMD, becomes the parent of what it leaves behind, and reaps each
 * process only that long after its end.  Ends when there is nothing left for as long.
 */
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	siginfo_t info;

	if (argc < 3 || prctl(PR_SET_CHILD_SUBREAPER, 1))
		return 2;
	if (!fork()) {
		execvp(argv[2], argv + 2);
		_exit(127);
	}
	while (!waitid(P_ALL, 0, &info, WEXITED | WNOWAIT)) {
		/* The command itself ends at once, and is not waited for. */
		usleep(info.si_status ? atoi(argv[1]) * 1000 : 0);
		waitpid(info.si_pid, NULL, 0);
	}
	return 0;
}
