/* SPDX-License-Identifier: Apache-2.0 */
/* A handler for SIGTRAP, with SIGTRAP blocked in one thread: what a careless debugger destroys. */
#include <pthread.h>
#include <signal.h>

#include "zdtm.h"

static volatile int traps;

static void handler(int sig)
{
	(void)sig;
	traps++;
}

static void *thread(void *arg)
{
	sigset_t set, now;

	sigemptyset(&set);
	sigaddset(&set, SIGTRAP);
	MUST0(pthread_sigmask(SIG_BLOCK, &set, NULL));
	test_wait();
	MUST0(pthread_sigmask(SIG_BLOCK, NULL, &now));
	CHECK(sigismember(&now, SIGTRAP), "SIGTRAP is not blocked any more");
	return arg;
}

int main(int argc, char **argv)
{
	struct sigaction sa = {.sa_handler = handler}, now;
	pthread_t t;

	test_init(argc, argv);
	MUST(sigaction(SIGTRAP, &sa, NULL));
	MUST0(pthread_create(&t, NULL, thread, NULL));
	test_sleep_ms(10);
	test_ready();
	test_wait();
	MUST(sigaction(SIGTRAP, NULL, &now));
	CHECK(now.sa_handler == handler, "the handler of SIGTRAP is lost");
	CHECK_EQ(traps, 0);
	__asm__ volatile("int3");
	CHECK_EQ(traps, 1);
	MUST0(pthread_join(t, NULL));
	test_pass();
}
