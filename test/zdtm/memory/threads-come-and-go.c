/* SPDX-License-Identifier: Apache-2.0 */
/* Threads are made and end while the process is copied. */
#include <pthread.h>

#include "zdtm.h"

#define THREADS 6

static int leave[THREADS];
static long turns[THREADS];

static void *thread(void *arg)
{
	long n = (long)arg;
	long mine = 0;

	turns[n] = 0;
	while (!__atomic_load_n(&leave[n], __ATOMIC_SEQ_CST) && test_waiting()) {
		mine++;
		turns[n]++;
		CHECK_EQ(mine, turns[n]);
		test_sleep_ms(1);
	}
	CHECK_EQ(mine, turns[n]);
	return (void *)mine;
}

int main(int argc, char **argv)
{
	pthread_t t[THREADS];
	bool running[THREADS] = {0};
	void *ret;
	int n = 0;

	test_init(argc, argv);
	test_ready();
	do {
		int i = n++ % THREADS;

		if (running[i]) {
			__atomic_store_n(&leave[i], 1, __ATOMIC_SEQ_CST);
			MUST0(pthread_join(t[i], &ret));
			CHECK_EQ((long)ret, turns[i]);
		}
		leave[i] = 0;
		MUST0(pthread_create(&t[i], NULL, thread, (void *)(long)i));
		running[i] = true;
	} while (test_wait_ms(10));
	for (int i = 0; i < THREADS; i++)
		if (running[i])
			MUST0(pthread_join(t[i], NULL));
	test_pass();
}
