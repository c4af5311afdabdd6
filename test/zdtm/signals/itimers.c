/* SPDX-License-Identifier: Apache-2.0 */
/* The three interval timers: what is left of them, their interval, and that they fire. */
#include <signal.h>
#include <sys/time.h>

#include "zdtm.h"

static volatile sig_atomic_t fired;

static void handler(int sig)
{
	(void)sig;
	fired++;
}

static double seconds(struct timeval t)
{
	return t.tv_sec + t.tv_usec / 1e6;
}

int main(int argc, char **argv)
{
	struct itimerval set[3] = {{{5, 250000}, {1000, 0}},
				   {{6, 0}, {2000, 500000}},
				   {{7, 125000}, {3000, 750000}}},
			 now, fast = {{0, 2000}, {0, 2000}};

	test_init(argc, argv);
	for (int i = 0; i < 3; i++)
		MUST(setitimer(i, &set[i], NULL));
	test_ready();
	test_wait();
	for (int i = 0; i < 3; i++) {
		MUST(getitimer(i, &now));
		CHECK(now.it_interval.tv_sec == set[i].it_interval.tv_sec &&
			      now.it_interval.tv_usec == set[i].it_interval.tv_usec,
		      "the interval of timer %d is %f", i, seconds(now.it_interval));
		CHECK(seconds(now.it_value) <= seconds(set[i].it_value) + 0.02 &&
			      seconds(now.it_value) > seconds(set[i].it_value) - 100,
		      "timer %d has %f s left of %f", i, seconds(now.it_value), seconds(set[i].it_value));
	}
	signal(SIGALRM, handler);
	MUST(setitimer(ITIMER_REAL, &fast, NULL));
	while (fired < 3)
		pause();
	test_pass();
}
