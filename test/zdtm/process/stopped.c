/* SPDX-License-Identifier: Apache-2.0 */
/* Stopped children, one of them with threads: they arrive stopped, and SIGCONT finds them where they were. */
#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>

#include "zdtm.h"

static volatile int *count;

static void *counter(void *arg)
{
	volatile int *c = arg;

	for (;;) {
		(*c)++;
		test_sleep_ms(1);
	}
	return NULL;
}

static void child(int threads)
{
	for (int i = 0; i < threads; i++) {
		pthread_t t;

		MUST0(pthread_create(&t, NULL, counter, (void *)&count[1 + i]));
	}
	counter((void *)&count[0]);
}

int main(int argc, char **argv)
{
	pid_t pid[2];
	int seen[3], status;

	test_init(argc, argv);
	count = test_shared_flags(4);
	for (int i = 0; i < 2; i++) {
		pid[i] = test_fork();
		if (!pid[i] && i)
			child(2);
		if (!pid[i])
			for (;;)
				pause();
	}
	while (!count[0] || !count[1] || !count[2])
		test_sleep_ms(1);
	for (int i = 0; i < 2; i++) {
		MUST(kill(pid[i], SIGSTOP));
		CHECK(waitpid(pid[i], &status, WUNTRACED) == pid[i] && WIFSTOPPED(status), "did not stop");
		test_wait_state(pid[i], "T");
	}
	for (int i = 0; i < 3; i++)
		seen[i] = count[i];
	test_ready();
	test_wait();
	test_sleep_ms(20);
	for (int i = 0; i < 3; i++)
		CHECK_EQ(count[i], seen[i]);
	for (int i = 0; i < 2; i++) {
		test_wait_state(pid[i], "T");
		MUST(kill(pid[i], SIGCONT));
		CHECK(waitpid(pid[i], &status, WCONTINUED) == pid[i] && WIFCONTINUED(status),
		      "did not continue: 0x%x", status);
	}
	/* All run again: one that does not is seen by the time limit. */
	for (int i = 0; i < 3; i++)
		while (count[i] <= seen[i])
			test_sleep_ms(1);
	for (int i = 0; i < 2; i++) {
		MUST(kill(pid[i], SIGKILL));
		MUST(waitpid(pid[i], &status, 0));
		CHECK_EQ(WTERMSIG(status), SIGKILL);
	}
	test_pass();
}
