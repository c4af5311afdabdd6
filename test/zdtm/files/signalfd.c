/* SPDX-License-Identifier: Apache-2.0 */
#include <signal.h>
#include <sys/signalfd.h>

#include "zdtm.h"

int main(int argc, char **argv)
{
	struct signalfd_siginfo info;
	sigset_t set;
	int fd;

	test_init(argc, argv);
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigaddset(&set, SIGRTMIN + 2);
	MUST(sigprocmask(SIG_BLOCK, &set, NULL));
	fd = MUST(signalfd(-1, &set, SFD_NONBLOCK));
	MUST(sigqueue(getpid(), SIGRTMIN + 2, (union sigval){.sival_int = 4321}));
	test_ready();
	test_wait();
	CHECK_EQ(read(fd, &info, sizeof(info)), sizeof(info));
	CHECK_EQ(info.ssi_signo, SIGRTMIN + 2);
	CHECK_EQ(info.ssi_int, 4321);
	CHECK(read(fd, &info, sizeof(info)) == -1 && errno == EAGAIN, "another signal");
	MUST(kill(getpid(), SIGUSR1));
	CHECK_EQ(read(fd, &info, sizeof(info)), sizeof(info));
	CHECK_EQ(info.ssi_signo, SIGUSR1);
	test_pass();
}
