/* SPDX-License-Identifier: Apache-2.0 */
/* Relative and absolute sleeps: not cut short, not ended by an EINTR that no handler explains. */
#include <pthread.h>
#include <time.h>

#include "zdtm.h"

static double now(void)
{
	struct timespec t;

	MUST(clock_gettime(CLOCK_MONOTONIC, &t));
	return t.tv_sec + t.tv_nsec / 1e9;
}

static void *relative(void *arg)
{
	struct timespec t = {1, 500000000}, left;
	double start = now(), took;
	int rc = nanosleep(&t, arg ? &left : NULL);

	took = now() - start;
	CHECK(!rc, "nanosleep%s after %f s", arg ? " with a remainder" : "", took);
	CHECK(took > 1.499, "slept only %f s", took);
	return NULL;
}

static void *absolute(void *arg)
{
	struct timespec t;
	double start = now(), took;

	MUST(clock_gettime(CLOCK_MONOTONIC, &t));
	t.tv_sec++;
	t.tv_nsec = 0;
	errno = clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL);
	took = now() - start;
	CHECK(!errno, "clock_nanosleep after %f s", took);
	CHECK(now() > t.tv_sec, "slept only %f s", took);
	return arg;
}

int main(int argc, char **argv)
{
	pthread_t t[3];

	test_init(argc, argv);
	MUST0(pthread_create(&t[0], NULL, relative, NULL));
	MUST0(pthread_create(&t[1], NULL, relative, (void *)1));
	MUST0(pthread_create(&t[2], NULL, absolute, NULL));
	test_sleep_ms(20);
	test_ready();
	for (int i = 0; i < 3; i++)
		MUST0(pthread_join(t[i], NULL));
	test_wait();
	test_pass();
}
