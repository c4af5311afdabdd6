/* SPDX-License-Identifier: Apache-2.0 */
/* Sessions and groups whose leader is long gone, and an orphan adopted by a subreaper inside the tree. */
#include <sys/prctl.h>
#include <sys/wait.h>

#include "zdtm.h"

static volatile int *shared;

static void live_on(int slot, int code)
{
	pid_t group = getpgrp(), session = getsid(0), parent = getppid();

	shared[slot] = getpid();
	test_wait();
	CHECK_EQ(getpgrp(), group);
	CHECK_EQ(getsid(0), session);
	CHECK_EQ(getppid(), parent);
	_exit(code);
}

int main(int argc, char **argv)
{
	pid_t leader;

	test_init(argc, argv);
	shared = test_shared_flags(4);
	MUST(prctl(PR_SET_CHILD_SUBREAPER, 1));
	leader = test_fork();
	if (!leader) { /* a session that its leader leaves */
		MUST(setsid());
		if (!test_fork()) {
			while (getppid() != (pid_t)shared[3])
				test_sleep_ms(1);
			live_on(0, 21);
		}
		_exit(1);
	}
	shared[3] = getpid();
	test_reap(leader, 1);
	leader = test_fork();
	if (!leader) { /* a group that its leader leaves */
		MUST(setpgid(0, 0));
		for (int i = 1; i < 3; i++) {
			if (!test_fork()) {
				while (getppid() != (pid_t)shared[3])
					test_sleep_ms(1);
				live_on(i, 21 + i);
			}
		}
		_exit(2);
	}
	test_reap(leader, 2);
	while (!shared[0] || !shared[1] || !shared[2])
		test_sleep_ms(1);
	test_ready();
	test_wait();
	for (int i = 0; i < 3; i++)
		test_reap(shared[i], 21 + i);
	test_pass();
}
