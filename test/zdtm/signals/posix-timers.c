/* SPDX-License-Identifier: Apache-2.0 */
/* POSIX timers: ids (with a gap), clocks, notification, rest, interval, and that they fire. */
#include <pthread.h>
#include <signal.h>
#include <sys/syscall.h>
#include <time.h>

#include "zdtm.h"

#define TIMERS 6

static const struct setting {
	clockid_t clock;
	int notify, sig;
	struct itimerspec time;
} settings[TIMERS] = {
	{CLOCK_MONOTONIC, SIGEV_SIGNAL, 40, {{7, 500}, {1000, 0}}},
	{CLOCK_REALTIME, SIGEV_NONE, 0, {{0, 0}, {2000, 0}}},
	{CLOCK_MONOTONIC, SIGEV_THREAD_ID, 41, {{3, 0}, {3000, 0}}},
	{CLOCK_BOOTTIME, SIGEV_SIGNAL, 42, {{0, 0}, {0, 0}}},
	{CLOCK_PROCESS_CPUTIME_ID, SIGEV_SIGNAL, 43, {{9, 0}, {4000, 0}}},
	{CLOCK_MONOTONIC, SIGEV_SIGNAL, 44, {{0, 0}, {0, 200000000}}}, /* fires soon */
};

static int create(const struct setting *s, int value)
{
	struct sigevent event = {
		.sigev_notify = s->notify, .sigev_signo = s->sig, .sigev_value.sival_int = value};
	int id;

	if (s->notify == SIGEV_THREAD_ID)
		event._sigev_un._tid = gettid();
	MUST(syscall(SYS_timer_create, s->clock, &event, &id));
	return id;
}

static double seconds(struct timespec t)
{
	return t.tv_sec + t.tv_nsec / 1e9;
}

int main(int argc, char **argv)
{
	struct timespec patience = {10, 0};
	struct itimerspec now, soon = {{0, 0}, {0, 1000000}};
	int id[TIMERS];
	siginfo_t info;
	sigset_t set;

	test_init(argc, argv);
	sigemptyset(&set);
	for (int i = 0; i < TIMERS; i++)
		if (settings[i].sig)
			sigaddset(&set, settings[i].sig);
	MUST(sigprocmask(SIG_BLOCK, &set, NULL));
	for (int i = 0; i < TIMERS; i++) {
		int gap = create(&settings[i], 0);

		id[i] = create(&settings[i], 1000 + i);
		MUST(syscall(SYS_timer_delete, gap));
		MUST(syscall(SYS_timer_settime, id[i], 0, &settings[i].time, NULL));
	}
	test_ready();
	test_wait();
	MUST(sigtimedwait(&set, &info, &patience));
	CHECK_EQ(info.si_signo, 44);
	CHECK_EQ(info.si_value.sival_int, 1005);
	for (int i = 0; i < TIMERS - 1; i++) {
		double want = seconds(settings[i].time.it_value), is;

		MUST(syscall(SYS_timer_gettime, id[i], &now));
		is = seconds(now.it_value);
		CHECK(now.it_interval.tv_sec == settings[i].time.it_interval.tv_sec &&
			      now.it_interval.tv_nsec == settings[i].time.it_interval.tv_nsec,
		      "timer %d has interval %f", i, seconds(now.it_interval));
		CHECK(is <= want + 0.02 && (want == 0 || is > want - 100), "timer %d has %f s left of %f", i,
		      is, want);
	}
	for (int i = 0; i < TIMERS - 1; i++) {
		if (settings[i].notify == SIGEV_NONE || settings[i].clock == CLOCK_PROCESS_CPUTIME_ID)
			continue;
		MUST(syscall(SYS_timer_settime, id[i], 0, &soon, NULL));
		MUST(sigtimedwait(&set, &info, &patience));
		CHECK_EQ(info.si_signo, settings[i].sig);
		CHECK_EQ(info.si_code, SI_TIMER);
		CHECK_EQ(info.si_timerid, id[i]);
		CHECK_EQ(info.si_value.sival_int, 1000 + i);
	}
	for (int i = 0; i < TIMERS; i++)
		MUST(syscall(SYS_timer_delete, id[i]));
	test_pass();
}
