/* SPDX-License-Identifier: Apache-2.0 */
/* read() of an empty pipe, in a thread and in the main thread of a child: goes on waiting, then gets the data
 * once. */
#include <pthread.h>

#include "zdtm.h"

static int fd[2][2];

static void reader(int i)
{
	char buf[16];
	ssize_t n = read(fd[i][0], buf, sizeof(buf));

	CHECK_EQ(n, 5);
	CHECK(!memcmp(buf, "hello", 5), "read something else");
	CHECK(!test_waiting(), "read too early");
}

static void *thread(void *arg)
{
	reader(0);
	return arg;
}

int main(int argc, char **argv)
{
	pthread_t t;
	pid_t child;

	test_init(argc, argv);
	for (int i = 0; i < 2; i++)
		MUST(pipe(fd[i]));
	child = test_fork();
	if (!child) {
		reader(1);
		_exit(8);
	}
	MUST0(pthread_create(&t, NULL, thread, NULL));
	test_wait_state(child, "S");
	test_sleep_ms(20);
	test_ready();
	test_wait();
	test_sleep_ms(20);
	for (int i = 0; i < 2; i++)
		CHECK_EQ(write(fd[i][1], "hello", 5), 5);
	MUST0(pthread_join(t, NULL));
	test_reap(child, 8);
	test_pass();
}
