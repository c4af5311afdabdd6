/* SPDX-License-Identifier: Apache-2.0 */
/* Waits in a futex: without a timeout, with a relative and with an absolute one; woken, or timed out, but
 * never for nothing. */
#include <linux/futex.h>
#include <pthread.h>
#include <sys/syscall.h>
#include <time.h>

#include "zdtm.h"

static int word[3];

static void *waiter(void *arg)
{
	long n = (long)arg;
	struct timespec t = {1000, 0};
	int op = FUTEX_WAIT_PRIVATE, rc;

	if (n == 2) {
		op = FUTEX_WAIT_BITSET_PRIVATE;
		MUST(clock_gettime(CLOCK_MONOTONIC, &t));
		t.tv_sec += 1000;
	}
	rc = syscall(SYS_futex, &word[n], op, 0, n ? &t : NULL, NULL, FUTEX_BITSET_MATCH_ANY);
	CHECK(!rc, "futex wait %ld", n);
	CHECK_EQ(__atomic_load_n(&word[n], __ATOMIC_SEQ_CST), 1);
	return NULL;
}

static void *times_out(void *arg)
{
	static int never;
	struct timespec t = {1, 0}, from, to;
	double took;

	MUST(clock_gettime(CLOCK_MONOTONIC, &from));
	CHECK(syscall(SYS_futex, &never, FUTEX_WAIT_PRIVATE, 0, &t, NULL, 0) == -1 && errno == ETIMEDOUT,
	      "futex did not time out");
	MUST(clock_gettime(CLOCK_MONOTONIC, &to));
	took = to.tv_sec - from.tv_sec + (to.tv_nsec - from.tv_nsec) / 1e9;
	CHECK(took > 0.999, "timed out after %f s", took);
	return arg;
}

int main(int argc, char **argv)
{
	pthread_t t[4];

	test_init(argc, argv);
	for (long n = 0; n < 3; n++)
		MUST0(pthread_create(&t[n], NULL, waiter, (void *)n));
	MUST0(pthread_create(&t[3], NULL, times_out, NULL));
	test_sleep_ms(20);
	test_ready();
	test_wait();
	for (int n = 0; n < 3; n++) {
		__atomic_store_n(&word[n], 1, __ATOMIC_SEQ_CST);
		/* Until it is woken: it may only now be back in its wait. */
		while (pthread_tryjoin_np(t[n], NULL)) {
			syscall(SYS_futex, &word[n], FUTEX_WAKE_PRIVATE, 1);
			test_sleep_ms(1);
		}
	}
	MUST0(pthread_join(t[3], NULL));
	test_pass();
}
