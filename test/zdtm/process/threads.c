/* SPDX-License-Identifier: Apache-2.0 */
/* Thread ids, names, masks, thread-local storage; some spin, some wait. */
#include <pthread.h>
#include <signal.h>
#include <sys/prctl.h>

#include "zdtm.h"

#define THREADS 8

static __thread int tls = 5;
static __thread char tls_zero[100];
static pthread_barrier_t up;

static void *thread(void *arg)
{
	long n = (long)arg;
	pid_t tid = gettid();
	pthread_t self = pthread_self();
	sigset_t mask, is;
	char name[16], got[16];

	snprintf(name, sizeof(name), "thread %ld", n);
	MUST(prctl(PR_SET_NAME, name));
	sigemptyset(&mask);
	sigaddset(&mask, SIGRTMIN + (int)n);
	MUST0(pthread_sigmask(SIG_SETMASK, &mask, NULL));
	tls += (int)n;
	memset(tls_zero, (int)n, sizeof(tls_zero));
	pthread_barrier_wait(&up);
	if (n % 2)
		while (test_waiting()) /* mostly in user space */
			for (volatile int i = 0; i < 100000; i++)
				;
	else
		test_wait();
	CHECK_EQ(gettid(), tid);
	CHECK(pthread_equal(self, pthread_self()), "pthread_self changed");
	CHECK_EQ(tls, 5 + n);
	for (size_t i = 0; i < sizeof(tls_zero); i++)
		CHECK_EQ(tls_zero[i], n);
	MUST0(pthread_sigmask(SIG_SETMASK, NULL, &is));
	for (int sig = 1; sig <= SIGRTMAX; sig++)
		CHECK(sigismember(&is, sig) == sigismember(&mask, sig), "signal %d in the mask of thread %ld",
		      sig, n);
	MUST(prctl(PR_GET_NAME, got));
	CHECK(!strcmp(name, got), "name is '%s'", got);
	return (void *)(n * 3);
}

int main(int argc, char **argv)
{
	pthread_t t[THREADS];
	void *ret;

	test_init(argc, argv);
	MUST0(pthread_barrier_init(&up, NULL, THREADS + 1));
	for (long n = 0; n < THREADS; n++)
		MUST0(pthread_create(&t[n], NULL, thread, (void *)n));
	pthread_barrier_wait(&up);
	test_ready();
	test_wait();
	CHECK_EQ(tls, 5);
	for (long n = 0; n < THREADS; n++) {
		MUST0(pthread_join(t[n], &ret));
		CHECK_EQ((long)ret, n * 3);
	}
	MUST0(pthread_barrier_init(&up, NULL, 1));
	MUST0(pthread_create(&t[0], NULL, thread, (void *)0)); /* the old stacks are used again */
	MUST0(pthread_join(t[0], &ret));
	test_pass();
}
