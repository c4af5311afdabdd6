/* SPDX-License-Identifier: Apache-2.0 */
/* F_SETOWN, F_SETOWN_EX, F_SETSIG and O_ASYNC: a signal still comes when data arrives. */
#include <fcntl.h>
#include <signal.h>
#include <sys/socket.h>
#include <time.h>

#include "zdtm.h"

int main(int argc, char **argv)
{
	struct f_owner_ex thread = {F_OWNER_TID, 0}, owner;
	struct timespec patience = {5, 0};
	int pair[2], pipes[2], group[2];
	siginfo_t info;
	sigset_t set;

	test_init(argc, argv);
	sigemptyset(&set);
	sigaddset(&set, SIGRTMIN + 5);
	sigaddset(&set, SIGIO);
	MUST(sigprocmask(SIG_BLOCK, &set, NULL));
	MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
	MUST(pipe(pipes));
	MUST(pipe(group));
	MUST(fcntl(pair[0], F_SETOWN, getpid()));
	MUST(fcntl(pair[0], F_SETSIG, SIGRTMIN + 5));
	MUST(fcntl(pair[0], F_SETFL, O_ASYNC));
	thread.pid = gettid();
	MUST(fcntl(pipes[0], F_SETOWN_EX, &thread));
	MUST(fcntl(group[0], F_SETOWN, -getpgrp()));
	test_ready();
	test_wait();
	CHECK_EQ(fcntl(pair[0], F_GETOWN), getpid());
	CHECK_EQ(fcntl(pair[0], F_GETSIG), SIGRTMIN + 5);
	CHECK_EQ(fcntl(pair[0], F_GETFL) & O_ASYNC, O_ASYNC);
	CHECK_EQ(fcntl(pair[1], F_GETOWN), 0);
	MUST(fcntl(pipes[0], F_GETOWN_EX, &owner));
	CHECK_EQ(owner.type, F_OWNER_TID);
	CHECK_EQ(owner.pid, thread.pid);
	MUST(fcntl(group[0], F_GETOWN_EX, &owner));
	CHECK_EQ(owner.type, F_OWNER_PGRP);
	CHECK_EQ(owner.pid, getpgrp());
	CHECK_EQ(write(pair[1], "x", 1), 1);
	MUST(sigtimedwait(&set, &info, &patience));
	CHECK_EQ(info.si_signo, SIGRTMIN + 5);
	CHECK_EQ(info.si_fd, pair[0]);
	test_pass();
}
