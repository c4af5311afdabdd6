/* SPDX-License-Identifier: Apache-2.0 */
/* Pending signals that only the kernel sends: SIGCHLD with the status of a child, and that of a timer. */
#include <signal.h>
#include <sys/wait.h>
#include <time.h>

#include "zdtm.h"

int main(int argc, char **argv)
{
	struct timespec now = {0};
	struct sigevent event = {
		.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN + 1, .sigev_value.sival_int = 99};
	struct itimerspec soon = {.it_value.tv_nsec = 1000000};
	siginfo_t info;
	sigset_t set;
	timer_t timer;
	pid_t child;

	test_init(argc, argv);
	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	sigaddset(&set, SIGRTMIN + 1);
	MUST(sigprocmask(SIG_BLOCK, &set, NULL));
	MUST(timer_create(CLOCK_MONOTONIC, &event, &timer));
	MUST(timer_settime(timer, 0, &soon, NULL));
	child = test_fork();
	if (!child)
		_exit(33);
	test_wait_state(child, "Z");
	test_sleep_ms(10);
	test_ready();
	test_wait();
	CHECK_EQ(sigtimedwait(&set, &info, &now), SIGCHLD);
	CHECK_EQ(info.si_code, CLD_EXITED);
	CHECK_EQ(info.si_pid, child);
	CHECK_EQ(info.si_status, 33);
	CHECK_EQ(sigtimedwait(&set, &info, &now), SIGRTMIN + 1);
	CHECK_EQ(info.si_code, SI_TIMER);
	CHECK_EQ(info.si_value.sival_int, 99);
	CHECK(sigtimedwait(&set, &info, &now) == -1 && errno == EAGAIN, "signal %d came again",
	      info.si_signo);
	test_reap(child, 33);
	test_pass();
}
