/* SPDX-License-Identifier: Apache-2.0 */
/* poll, ppoll, select and pselect: with and without timeout. */
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/select.h>
#include <time.h>

#include "zdtm.h"

static int fd[6][2];

static double now(void)
{
	struct timespec t;

	MUST(clock_gettime(CLOCK_MONOTONIC, &t));
	return t.tv_sec + t.tv_nsec / 1e9;
}

static void *waiter(void *arg)
{
	long n = (long)arg;
	struct pollfd p = {.fd = fd[n][0], .events = POLLIN};
	struct timespec ts = {1000, 0};
	struct timeval tv = {1000, 0};
	fd_set set;
	int rc;

	FD_ZERO(&set);
	FD_SET(p.fd, &set);
	switch (n) {
	case 0:
		rc = poll(&p, 1, -1);
		break;
	case 1:
		rc = poll(&p, 1, 1000000);
		break;
	case 2:
		rc = ppoll(&p, 1, &ts, NULL);
		break;
	case 3:
		rc = select(p.fd + 1, &set, NULL, NULL, NULL);
		break;
	case 4:
		rc = select(p.fd + 1, &set, NULL, NULL, &tv);
		break;
	default:
		rc = pselect(p.fd + 1, &set, NULL, NULL, &ts, NULL);
		break;
	}
	CHECK(rc == 1, "waiter %ld got %d", n, rc);
	CHECK(!test_waiting(), "waiter %ld came back early", n);
	return NULL;
}

static void *times_out(void *arg)
{
	double start = now();
	int rc = poll(NULL, 0, 1200);

	CHECK(!rc, "poll");
	CHECK(now() - start > 1.199, "timed out after %f s", now() - start);
	return arg;
}

int main(int argc, char **argv)
{
	pthread_t t[7];

	test_init(argc, argv);
	for (long n = 0; n < 6; n++) {
		MUST(pipe(fd[n]));
		MUST0(pthread_create(&t[n], NULL, waiter, (void *)n));
	}
	MUST0(pthread_create(&t[6], NULL, times_out, NULL));
	test_sleep_ms(20);
	test_ready();
	test_wait();
	for (int n = 0; n < 6; n++)
		CHECK_EQ(write(fd[n][1], "x", 1), 1);
	for (int n = 0; n < 7; n++)
		MUST0(pthread_join(t[n], NULL));
	test_pass();
}
