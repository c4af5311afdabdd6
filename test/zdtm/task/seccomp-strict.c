/* SPDX-License-Identifier: Apache-2.0 */
/* Processes in the strict mode of seccomp: one waits in read(2), one computes; they are held to it still. */
#include <linux/seccomp.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "zdtm.h"

static pid_t start(int in, int out)
{
	pid_t child = test_fork();
	char c = 0;

	if (child)
		return child;
	MUST(prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT, 0, 0, 0));
	while (read(in, &c, 1) == 1 && c != 'e' && c != 'k')
		if (write(out, &c, 1) != 1)
			break;
	if (c == 'k')
		syscall(SYS_getpid);
	syscall(SYS_exit, c == 'e' ? 3 : 4);
	return 0;
}

static void say(int in, int out, char c)
{
	char back = 0;

	CHECK_EQ(write(in, &c, 1), 1);
	CHECK_EQ(read(out, &back, 1), 1);
	CHECK_EQ(back, c);
}

int main(int argc, char **argv)
{
	volatile int *flags;
	int in[2][2], out[2][2], status;
	pid_t child[2], busy;

	test_init(argc, argv);
	flags = test_shared_flags(2);
	for (int i = 0; i < 2; i++) {
		MUST(pipe(in[i]));
		MUST(pipe(out[i]));
		child[i] = start(in[i][0], out[i][1]);
		say(in[i][1], out[i][0], 'a');
	}
	busy = test_fork();
	if (busy == 0) {
		MUST(prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT, 0, 0, 0));
		for (flags[0] = 1; !flags[1];)
			;
		syscall(SYS_exit, 5);
	}
	while (!flags[0])
		test_sleep_ms(1);
	test_ready();
	test_wait();
	flags[1] = 1;
	test_reap(busy, 5);
	say(in[0][1], out[0][0], 'b');
	CHECK_EQ(write(in[0][1], "e", 1), 1);
	test_reap(child[0], 3);
	say(in[1][1], out[1][0], 'b');
	CHECK_EQ(write(in[1][1], "k", 1), 1);
	MUST(waitpid(child[1], &status, 0));
	CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL,
	      "it is not held to the strict mode: status 0x%x", status);
	test_pass();
}
