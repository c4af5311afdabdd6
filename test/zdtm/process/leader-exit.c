/* SPDX-License-Identifier: Apache-2.0 */
/* The first thread has ended, the process lives on in the others. */
#include <pthread.h>

#include "zdtm.h"

static pid_t pid;

static void *thread(void *arg)
{
	(void)arg;
	test_wait_state(pid, "Z");
	test_ready();
	test_wait();
	CHECK_EQ(getpid(), pid);
	test_pass();
}

int main(int argc, char **argv)
{
	pthread_t t;

	test_init(argc, argv);
	pid = getpid();
	MUST0(pthread_create(&t, NULL, thread, NULL));
	pthread_exit(NULL);
}
