/* SPDX-License-Identifier: Apache-2.0 */
/* Threads whose credentials differ, by the raw system calls. */
#include <pthread.h>
#include <sys/syscall.h>

#include "zdtm.h"

static pthread_barrier_t up;

static void *thread(void *arg)
{
	long n = (long)arg;
	uid_t u[3];
	gid_t g[3];

	MUST(syscall(SYS_setresgid, 200 + n, 300 + n, 400 + n));
	MUST(syscall(SYS_setresuid, 500 + n, 600 + n, 0));
	pthread_barrier_wait(&up);
	while (test_waiting())
		test_sleep_ms(5);
	MUST(syscall(SYS_getresuid, &u[0], &u[1], &u[2]));
	MUST(syscall(SYS_getresgid, &g[0], &g[1], &g[2]));
	CHECK_EQ(u[0], 500 + n);
	CHECK_EQ(u[1], 600 + n);
	CHECK_EQ(u[2], 0);
	CHECK_EQ(g[0], 200 + n);
	CHECK_EQ(g[1], 300 + n);
	CHECK_EQ(g[2], 400 + n);
	return NULL;
}

int main(int argc, char **argv)
{
	pthread_t t[3];

	test_init(argc, argv);
	MUST0(pthread_barrier_init(&up, NULL, 4));
	for (long i = 0; i < 3; i++)
		MUST0(pthread_create(&t[i], NULL, thread, (void *)i));
	pthread_barrier_wait(&up);
	test_ready();
	test_wait();
	CHECK_EQ(getuid(), 0);
	CHECK_EQ(getgid(), 0);
	for (int i = 0; i < 3; i++)
		MUST0(pthread_join(t[i], NULL));
	test_pass();
}
