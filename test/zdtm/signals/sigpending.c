/* SPDX-License-Identifier: Apache-2.0 */
/* Pending signals of the process and of one thread, with their order and data. */
#include <pthread.h>
#include <signal.h>
#include <sys/syscall.h>

#include "zdtm.h"

#define RT (SIGRTMIN + 3)

static pthread_barrier_t up;

static int send(int sig, int code, int value, pid_t tid)
{
	siginfo_t info = {.si_signo = sig, .si_code = code};

	info.si_pid = 4321;
	info.si_uid = 77;
	info.si_value.sival_int = value;
	if (tid)
		return syscall(SYS_rt_tgsigqueueinfo, getpid(), tid, sig, &info);
	return syscall(SYS_rt_sigqueueinfo, getpid(), sig, &info);
}

static void take(int sig, int code, pid_t pid, uid_t uid, int value)
{
	struct timespec now = {0};
	siginfo_t info;
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, sig);
	MUST(syscall(SYS_rt_sigtimedwait, &set, &info, &now, 8)); /* glibc hides SI_TKILL */
	CHECK_EQ(info.si_signo, sig);
	CHECK_EQ(info.si_code, code);
	CHECK_EQ(info.si_pid, pid);
	CHECK_EQ(info.si_uid, uid);
	if (code == SI_QUEUE || code == SI_MESGQ)
		CHECK_EQ(info.si_value.sival_int, value);
}

static void none_left(void)
{
	struct timespec now = {0};
	sigset_t set;

	sigfillset(&set);
	CHECK(sigtimedwait(&set, NULL, &now) == -1 && errno == EAGAIN, "a signal too many");
	errno = 0;
}

static void *thread(void *arg)
{
	pid_t tid = gettid();

	for (int i = 0; i < 3; i++)
		MUST(send(RT, SI_QUEUE, 100 + i, tid));
	MUST(syscall(SYS_tgkill, getpid(), tid, SIGUSR1));
	pthread_barrier_wait(&up);
	test_wait();
	pthread_barrier_wait(&up); /* the process takes its own first */
	for (int i = 0; i < 3; i++)
		take(RT, SI_QUEUE, 4321, 77, 100 + i);
	take(SIGUSR1, SI_TKILL, getpid(), 0, 0);
	none_left();
	return arg;
}

int main(int argc, char **argv)
{
	sigset_t all, set;
	pthread_t t;

	test_init(argc, argv);
	sigfillset(&all);
	MUST(sigprocmask(SIG_BLOCK, &all, NULL));
	MUST0(pthread_barrier_init(&up, NULL, 2));
	MUST0(pthread_create(&t, NULL, thread, NULL));
	pthread_barrier_wait(&up);
	for (int i = 0; i < 5; i++)
		MUST(send(SIGRTMAX, SI_QUEUE, i, 0));
	MUST(send(SIGRTMAX - 1, SI_MESGQ, 9, 0));
	MUST(kill(getpid(), SIGTERM));
	MUST(kill(getpid(), SIGTERM)); /* a standard signal stays one */
	MUST(send(SIGUSR2, SI_QUEUE, 55, gettid()));
	test_ready();
	test_wait();
	MUST(sigpending(&set));
	CHECK(sigismember(&set, SIGTERM) && sigismember(&set, SIGUSR2) && sigismember(&set, SIGRTMAX),
	      "not pending any more");
	CHECK(!sigismember(&set, SIGUSR1), "a signal for another thread is pending here");
	for (int i = 0; i < 5; i++)
		take(SIGRTMAX, SI_QUEUE, 4321, 77, i);
	take(SIGRTMAX - 1, SI_MESGQ, 4321, 77, 9);
	take(SIGTERM, SI_USER, getpid(), 0, 0);
	take(SIGUSR2, SI_QUEUE, 4321, 77, 55);
	none_left();
	pthread_barrier_wait(&up);
	MUST0(pthread_join(t, NULL));
	test_pass();
}
