/* SPDX-License-Identifier: Apache-2.0 */
/* A periodic timer that fires all the time, before, during and after. */
#include <signal.h>
#include <sys/time.h>

#include "zdtm.h"

static volatile sig_atomic_t fired;

static void handler(int sig)
{
	(void)sig;
	fired++;
}

int main(int argc, char **argv)
{
	struct itimerval often = {{0, 3000}, {0, 3000}};
	struct sigaction sa = {.sa_handler = handler, .sa_flags = SA_RESTART};
	int before;

	test_init(argc, argv);
	MUST(sigaction(SIGALRM, &sa, NULL));
	MUST(setitimer(ITIMER_REAL, &often, NULL));
	while (fired < 3)
		pause();
	test_ready();
	test_wait();
	before = fired;
	for (int i = 0; i < 1000 && fired < before + 5; i++)
		test_sleep_ms(1);
	errno = 0;
	CHECK(fired >= before + 5, "the timer does not fire any more");
	test_pass();
}
