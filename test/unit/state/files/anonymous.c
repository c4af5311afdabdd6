/* SPDX-License-Identifier: Apache-2.0 */
/* Round trips of eventfds, timerfds, signalfds and memfds. */
#include "fixture.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>
#include <time.h>

#include "procfs/procfs.h"
#include "state/files/eventfd.h"

static void eventfd_setup(int k)
{
	uint64_t most = 0xfffffffffffffffeull;

	(void)k;
	MUST(eventfd(7, EFD_SEMAPHORE | EFD_NONBLOCK) == 0);
	MUST(eventfd(0, EFD_CLOEXEC) == 1 && write(1, &most, 8) == 8);
	MUST(eventfd(0, 0) == 2);
}

static void eventfd_verify(int k)
{
	uint64_t v;

	(void)k;
	MUST(fcntl(0, F_GETFL) & O_NONBLOCK && read(0, &v, 8) == 8 && v == 1);
	MUST(fcntl(1, F_GETFD) & FD_CLOEXEC && !(fcntl(1, F_GETFL) & O_NONBLOCK) && read(1, &v, 8) == 8 &&
	     v == 0xfffffffffffffffeull);
	struct pollfd p = {.fd = 2, .events = POLLIN | POLLOUT};

	MUST(poll(&p, 1, 0) == 1 && p.revents == POLLOUT);
}

static void test_eventfd(void **state)
{
	(void)state;
	round_trip(&(struct scenario){eventfd_setup, eventfd_verify, 1, {0}});
}

static uint64_t eventfd_count(int fd)
{
	cleanup_free char *path = xasprintf("/proc/self/fdinfo/%d", fd), *info = NULL;
	uint64_t count = 0;

	assert_true(read_file(path, &info) > 0);
	assert_true(proc_field_u64(info, "eventfd-count", 16, &count));
	return count;
}

/* As it is found out where the kernel does not tell: the counter is the same afterwards. */
static void test_semaphore(void **state)
{
	static const uint64_t counts[] = {
		0, 1, 2, 3, 17, 1ull << 32, 0xfffffffffffffffdull, 0xfffffffffffffffeull};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(counts); i++)
		for (int k = 0; k < 4; k++) {
			int flags = (k & 1 ? EFD_SEMAPHORE : 0) | (k & 2 ? EFD_NONBLOCK : 0);
			cleanup_close int fd = eventfd(0, flags | EFD_CLOEXEC);
			bool found = !(k & 1);

			assert_true(fd >= 0);
			assert_true(!counts[i] || write(fd, &counts[i], 8) == 8);
			assert_int_equal(eventfd_find_semaphore(fd, counts[i], &found), 0);
			assert_int_equal(found, k & 1);
			assert_true(eventfd_count(fd) == counts[i]);
		}
}

static void arm(int fd, int flags, int clock, long first_ms, long interval_ms)
{
	struct itimerspec t = {.it_interval = {interval_ms / 1000, interval_ms % 1000 * 1000000},
			       .it_value = {first_ms / 1000, first_ms % 1000 * 1000000}};

	if (flags & TFD_TIMER_ABSTIME) {
		struct timespec now;

		clock_gettime(clock, &now);
		t.it_value.tv_sec += now.tv_sec;
		t.it_value.tv_nsec = now.tv_nsec;
	}
	MUST(timerfd_settime(fd, flags, &t, NULL) == 0);
}

static void timerfd_setup(int k)
{
	(void)k;
	for (int i = 0; i < 6; i++)
		MUST(timerfd_create(i == 3   ? CLOCK_REALTIME
				    : i == 4 ? CLOCK_BOOTTIME
					     : CLOCK_MONOTONIC,
				    TFD_NONBLOCK) == i);
	arm(0, 0, 0, 1000000, 5000);                                                    /* far away */
	arm(1, 0, 0, 1, 1);                                                             /* overdue */
	arm(2, 0, 0, 1, 0);                                                             /* once, over */
	arm(3, TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET, CLOCK_REALTIME, 500000, 0); /* at a date */
	arm(4, TFD_TIMER_ABSTIME, CLOCK_BOOTTIME, 600000, 0);
	usleep(30000); /* and 5 never armed */
}

static void timerfd_verify(int k)
{
	struct itimerspec t;
	uint64_t ticks;

	(void)k;
	MUST(timerfd_gettime(0, &t) == 0 && t.it_value.tv_sec > 990 && t.it_value.tv_sec < 1000 &&
	     t.it_interval.tv_sec == 5);
	MUST(read(0, &ticks, 8) == -1 && errno == EAGAIN);
	MUST(read(1, &ticks, 8) == 8 && ticks >= 30 && ticks < 20000);
	MUST(timerfd_gettime(1, &t) == 0 && t.it_interval.tv_nsec == 1000000);
	MUST(timerfd_gettime(2, &t) == 0 && t.it_value.tv_sec == 0 && t.it_value.tv_nsec == 0);
	MUST(read(2, &ticks, 8) == 8 && ticks == 1);
	MUST(timerfd_gettime(3, &t) == 0 && t.it_value.tv_sec > 490 && t.it_value.tv_sec < 500);
	MUST(timerfd_gettime(4, &t) == 0 && t.it_value.tv_sec > 590 && t.it_value.tv_sec < 600);
	MUST(timerfd_gettime(5, &t) == 0 && t.it_value.tv_sec == 0 && read(5, &ticks, 8) == -1);
	cleanup_free char *text = NULL;

	MUST(read_file("/proc/self/fdinfo/3", &text) > 0 && strstr(text, "clockid: 0") &&
	     strstr(text, "settime flags: 03"));
}

static void test_timerfd(void **state)
{
	(void)state;
	round_trip(&(struct scenario){timerfd_setup, timerfd_verify, 1, {0}});
}

static void signalfd_setup(int k)
{
	sigset_t s;

	(void)k;
	sigemptyset(&s);
	sigaddset(&s, SIGUSR1);
	sigaddset(&s, SIGRTMIN + 3);
	MUST(signalfd(-1, &s, SFD_NONBLOCK | SFD_CLOEXEC) == 0);
}

static void signalfd_verify(int k)
{
	struct signalfd_siginfo i;
	sigset_t s;

	(void)k;
	sigfillset(&s);
	sigprocmask(SIG_BLOCK, &s, NULL);
	MUST(read(0, &i, sizeof(i)) == -1 && errno == EAGAIN);
	raise(SIGUSR2);
	MUST(read(0, &i, sizeof(i)) == -1);
	raise(SIGUSR1);
	raise(SIGRTMIN + 3);
	MUST(read(0, &i, sizeof(i)) == sizeof(i) && i.ssi_signo == SIGUSR1);
	MUST(read(0, &i, sizeof(i)) == sizeof(i) && (int)i.ssi_signo == SIGRTMIN + 3);
}

static void test_signalfd(void **state)
{
	(void)state;
	round_trip(&(struct scenario){signalfd_setup, signalfd_verify, 1, {0}});
}

static void memfd_setup(int k)
{
	(void)k;
	MUST(memfd_create("shared", 0) == 0 && write(0, "memory", 6) == 6);
	MUST(open("/proc/self/fd/0", O_RDONLY) == 1 && lseek(1, 2, SEEK_SET) == 2);
	MUST(memfd_create("other", MFD_CLOEXEC) == 2);
}

static void memfd_verify(int k)
{
	char text[8];
	struct stat a, b;

	(void)k;
	MUST(lseek(0, 0, SEEK_CUR) == 6 && pread(0, text, 6, 0) == 6 && !memcmp(text, "memory", 6));
	MUST(read(1, text, 4) == 4 && !memcmp(text, "mory", 4) && write(1, "x", 1) == -1);
	MUST(fstat(0, &a) == 0 && fstat(1, &b) == 0 && a.st_ino == b.st_ino && fstat(2, &b) == 0 &&
	     a.st_ino != b.st_ino);
	MUST(fcntl(2, F_GETFD) & FD_CLOEXEC);
}

static void test_memfd(void **state)
{
	(void)state;
	round_trip(&(struct scenario){memfd_setup, memfd_verify, 1, {0}});
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_eventfd), cmocka_unit_test(test_semaphore),
		cmocka_unit_test(test_timerfd), cmocka_unit_test(test_signalfd),
		cmocka_unit_test(test_memfd),
	};

	return cmocka_run_group_tests(tests, make_shared, NULL);
}
