/* SPDX-License-Identifier: Apache-2.0 */
/* The kernel clears and wakes the tid word when a restored thread ends: pthread_join depends on it. */
#include <pthread.h>

#include "zdtm.h"

static void *sleeper(void *arg)
{
	test_wait();
	test_sleep_ms(50);
	return arg;
}

static void *joiner(void *arg)
{
	void *ret;

	MUST0(pthread_join(*(pthread_t *)arg, &ret));
	return ret;
}

int main(int argc, char **argv)
{
	pthread_t first, second;
	void *ret;

	test_init(argc, argv);
	MUST0(pthread_create(&first, NULL, sleeper, (void *)77));
	MUST0(pthread_create(&second, NULL, joiner, &first));
	test_sleep_ms(50); /* the joiner waits in a futex by now */
	test_ready();
	MUST0(pthread_join(second, &ret));
	CHECK_EQ((long)ret, 77);
	CHECK(!test_waiting(), "joined too early");
	test_pass();
}
