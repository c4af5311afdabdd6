/* SPDX-License-Identifier: Apache-2.0 */
/* pause and sigsuspend: nothing but their signal ends them, and the old mask comes back. */
#include <pthread.h>
#include <signal.h>

#include "zdtm.h"

static volatile sig_atomic_t got;

static void handler(int sig)
{
	(void)sig;
	got++;
}

static void *suspended(void *arg)
{
	sigset_t block, open, now;

	sigemptyset(&block);
	sigaddset(&block, SIGUSR1);
	sigaddset(&block, SIGUSR2);
	MUST0(pthread_sigmask(SIG_SETMASK, &block, NULL));
	sigfillset(&open);
	sigdelset(&open, SIGUSR1);
	CHECK(sigsuspend(&open) == -1 && errno == EINTR, "sigsuspend");
	CHECK_EQ(got, 1);
	MUST0(pthread_sigmask(SIG_SETMASK, NULL, &now));
	CHECK(sigismember(&now, SIGUSR1) && sigismember(&now, SIGUSR2) && !sigismember(&now, SIGHUP),
	      "the mask did not come back");
	return arg;
}

static void *paused(void *arg)
{
	pause();
	CHECK_EQ(got, 2);
	return arg;
}

int main(int argc, char **argv)
{
	pthread_t t[2];

	test_init(argc, argv);
	signal(SIGUSR1, handler);
	MUST0(pthread_create(&t[0], NULL, suspended, NULL));
	MUST0(pthread_create(&t[1], NULL, paused, NULL));
	test_sleep_ms(30);
	test_ready();
	test_wait();
	test_sleep_ms(20);
	MUST0(pthread_kill(t[0], SIGUSR1));
	MUST0(pthread_join(t[0], NULL));
	MUST0(pthread_kill(t[1], SIGUSR1));
	MUST0(pthread_join(t[1], NULL));
	test_pass();
}
