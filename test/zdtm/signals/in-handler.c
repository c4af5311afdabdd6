/* SPDX-License-Identifier: Apache-2.0 */
/* A thread is moved while it is in a signal handler on its alternate stack: the return must find everything.
 */
#include <pthread.h>
#include <signal.h>

#include "zdtm.h"

static volatile int in_handler, returned;

static void handler(int sig)
{
	char big[4096];

	test_fill(big, sizeof(big), sig);
	in_handler = 1;
	test_wait();
	test_check_fill(big, sizeof(big), sig, "the handler's stack");
}

static void *thread(void *arg)
{
	static char stack[128 << 10];
	stack_t alt = {.ss_sp = stack, .ss_size = sizeof(stack)}, now;
	struct sigaction sa = {.sa_handler = handler, .sa_flags = SA_ONSTACK};
	volatile double d = 3.25;
	sigset_t mask;

	MUST(sigaltstack(&alt, NULL));
	MUST(sigaction(SIGUSR1, &sa, NULL));
	raise(SIGUSR1);
	returned = 1;
	CHECK(d == 3.25, "a floating-point value is lost");
	MUST(sigaltstack(NULL, &now));
	CHECK(now.ss_sp == stack && !now.ss_flags, "the alternate stack is lost");
	MUST0(pthread_sigmask(SIG_BLOCK, NULL, &mask));
	CHECK(!sigismember(&mask, SIGUSR1), "the signal stays blocked");
	return arg;
}

int main(int argc, char **argv)
{
	pthread_t t;

	test_init(argc, argv);
	MUST0(pthread_create(&t, NULL, thread, NULL));
	while (!in_handler)
		test_sleep_ms(1);
	test_ready();
	test_wait();
	MUST0(pthread_join(t, NULL));
	CHECK_EQ(returned, 1);
	test_pass();
}
