/* SPDX-License-Identifier: Apache-2.0 */
/* Descriptors of processes: self, a child, a grandchild, a thread, a zombie and a dead one, the same one
 * twice. */
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "zdtm.h"

#define THREAD O_EXCL /* PIDFD_THREAD */

static int pidfd(pid_t pid, unsigned flags)
{
	return syscall(SYS_pidfd_open, pid, flags);
}

static bool ended(int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};

	return MUST(poll(&p, 1, 0)) == 1;
}

static _Noreturn void *sleeper(void *arg)
{
	*(volatile pid_t *)arg = gettid();
	for (;;)
		pause();
}

static int send(int fd, int sig)
{
	return syscall(SYS_pidfd_send_signal, fd, sig, NULL, 0);
}

int main(int argc, char **argv)
{
	volatile int *grandchild;
	volatile pid_t tid = 0;
	int self, of_child, nonblock, of_grandchild, of_thread, of_zombie, of_dead, dead_again, dup_child;
	pid_t child, zombie, dead;
	struct stat a, b;
	pthread_t thread;
	siginfo_t info;

	test_init(argc, argv);
	grandchild = test_shared_flags(1);
	child = test_fork();
	if (!child) {
		pid_t g = test_fork();

		if (!g)
			for (;;)
				pause();
		*grandchild = g;
		for (;;)
			pause();
	}
	while (!*grandchild)
		test_sleep_ms(1);
	MUST0(pthread_create(&thread, NULL, sleeper, (void *)&tid));
	while (!tid)
		test_sleep_ms(1);
	zombie = test_fork();
	if (!zombie)
		_exit(7);
	test_wait_state(zombie, "Z");
	dead = test_fork();
	if (!dead)
		for (;;)
			pause();
	self = MUST(pidfd(getpid(), 0));
	of_child = MUST(pidfd(child, 0));
	nonblock = MUST(pidfd(child, O_NONBLOCK));
	dup_child = MUST(dup(of_child));
	of_grandchild = MUST(pidfd(*grandchild, 0));
	of_thread = pidfd(tid, THREAD);
	if (of_thread < 0)
		test_skip("no pidfd of a thread: %s", strerror(errno));
	of_zombie = MUST(pidfd(zombie, 0));
	of_dead = MUST(pidfd(dead, 0));
	dead_again = MUST(pidfd(dead, 0));
	MUST(kill(dead, SIGTERM));
	CHECK_EQ(waitpid(dead, NULL, 0), dead);
	test_ready();
	test_wait();
	CHECK(!ended(self) && !ended(of_child) && !ended(of_grandchild) && !ended(of_thread),
	      "a living process is said to have ended");
	CHECK(ended(of_zombie) && ended(of_dead) && ended(dead_again), "a dead process is said to live");
	CHECK_EQ(fcntl(nonblock, F_GETFL) & O_NONBLOCK, O_NONBLOCK);
	CHECK_EQ(fcntl(of_thread, F_GETFL) & THREAD, THREAD);
	MUST(fstat(of_child, &a));
	MUST(fstat(nonblock, &b));
	CHECK_EQ(a.st_ino, b.st_ino);
	MUST(send(self, 0));
	CHECK(send(of_dead, 0) == -1 && errno == ESRCH, "a signal reaches the dead");
	CHECK(waitid((idtype_t)3 /* P_PIDFD */, of_dead, &info, WEXITED) == -1 && errno == ECHILD,
	      "the dead child can be waited for");
	MUST(waitid((idtype_t)3, of_zombie, &info, WEXITED));
	CHECK_EQ(info.si_pid, zombie);
	CHECK_EQ(info.si_status, 7);
	MUST(send(of_grandchild, SIGKILL));
	for (int i = 0; i < 5000 && !ended(of_grandchild); i++)
		test_sleep_ms(1);
	CHECK(ended(of_grandchild), "the end of the grandchild does not show");
	CHECK(waitid((idtype_t)3, nonblock, &info, WEXITED) == -1 && errno == EAGAIN, "the wait blocks");
	MUST(send(dup_child, SIGUSR1));
	MUST(waitid((idtype_t)3, of_child, &info, WEXITED));
	CHECK_EQ(info.si_pid, child);
	CHECK_EQ(info.si_code, CLD_KILLED);
	CHECK_EQ(info.si_status, SIGUSR1);
	test_pass();
}
