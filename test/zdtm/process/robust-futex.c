/* SPDX-License-Identifier: Apache-2.0 */
/* The owner of a robust mutex ends after the restore: the next one must be told. Once with a process, once
 * with a thread. */
#include <pthread.h>
#include <sys/mman.h>

#include "zdtm.h"

static pthread_mutex_t *mutex;
static volatile int *held;

static void hold(int i)
{
	MUST0(pthread_mutex_lock(&mutex[i]));
	held[i] = 1;
	test_wait();
}

static void *thread(void *arg)
{
	hold(1);
	return arg;
}

int main(int argc, char **argv)
{
	pthread_mutexattr_t attr;
	pthread_t t;
	pid_t child;
	int rc;

	test_init(argc, argv);
	mutex = test_map(2 * sizeof(*mutex), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS);
	held = test_shared_flags(2);
	MUST0(pthread_mutexattr_init(&attr));
	MUST0(pthread_mutexattr_setpshared(&attr, PTHREAD_PROCESS_SHARED));
	MUST0(pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST));
	for (int i = 0; i < 2; i++)
		MUST0(pthread_mutex_init(&mutex[i], &attr));
	child = test_fork();
	if (!child) {
		hold(0);
		_exit(9);
	}
	MUST0(pthread_create(&t, NULL, thread, NULL));
	while (!held[0] || !held[1])
		test_sleep_ms(1);
	test_ready();
	test_wait();
	for (int i = 0; i < 2; i++) {
		rc = pthread_mutex_lock(&mutex[i]);
		CHECK_EQ(rc, EOWNERDEAD);
		MUST0(pthread_mutex_consistent(&mutex[i]));
		MUST0(pthread_mutex_unlock(&mutex[i]));
	}
	test_reap(child, 9);
	MUST0(pthread_join(t, NULL));
	test_pass();
}
