/* SPDX-License-Identifier: Apache-2.0 */
/* timerfds: unarmed, one-shot, periodic with expirations that nobody has read, absolute. */
#include <sys/timerfd.h>

#include "zdtm.h"

int main(int argc, char **argv)
{
	struct itimerspec once = {{0, 0}, {1000, 0}}, often = {{0, 10000000}, {0, 10000000}};
	struct itimerspec slow = {{77, 5}, {500, 0}}, late = {{0, 0}, {0, 0}}, now;
	int unarmed, single, periodic, absolute, fired;
	uint64_t n;

	test_init(argc, argv);
	unarmed = MUST(timerfd_create(CLOCK_REALTIME, TFD_NONBLOCK | TFD_CLOEXEC));
	single = MUST(timerfd_create(CLOCK_MONOTONIC, 0));
	periodic = MUST(timerfd_create(CLOCK_MONOTONIC, 0));
	absolute = MUST(timerfd_create(CLOCK_BOOTTIME, TFD_NONBLOCK));
	fired = MUST(timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK));
	MUST(timerfd_settime(single, 0, &slow, NULL));
	MUST(timerfd_settime(periodic, 0, &often, NULL));
	MUST(clock_gettime(CLOCK_BOOTTIME, &late.it_value));
	late.it_value.tv_sec += 1000;
	MUST(timerfd_settime(absolute, TFD_TIMER_ABSTIME, &late, NULL));
	once.it_value = (struct timespec){0, 1000000};
	MUST(timerfd_settime(fired, 0, &once, NULL));
	test_sleep_ms(35); /* the periodic one has fired at least three times */
	test_ready();
	test_wait();
	CHECK(read(unarmed, &n, 8) == -1 && errno == EAGAIN, "the unarmed timer fired");
	MUST(timerfd_gettime(single, &now));
	CHECK(now.it_interval.tv_sec == 77 && now.it_interval.tv_nsec == 5, "interval %ld.%09ld",
	      now.it_interval.tv_sec, now.it_interval.tv_nsec);
	CHECK(now.it_value.tv_sec > 300 && now.it_value.tv_sec <= 500, "%ld s left of 500",
	      now.it_value.tv_sec);
	CHECK_EQ(read(periodic, &n, 8), 8);
	CHECK(n >= 3, "only %llu expirations", (unsigned long long)n);
	CHECK_EQ(read(periodic, &n, 8), 8);
	CHECK(n >= 1 && n < 1000, "%llu expirations", (unsigned long long)n);
	MUST(timerfd_gettime(absolute, &now));
	CHECK(now.it_value.tv_sec > 800 && now.it_value.tv_sec <= 1000, "%ld s left of 1000",
	      now.it_value.tv_sec);
	CHECK(read(absolute, &n, 8) == -1 && errno == EAGAIN, "the absolute timer fired");
	CHECK_EQ(read(fired, &n, 8), 8);
	CHECK_EQ(n, 1);
	test_pass();
}
