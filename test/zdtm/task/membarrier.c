/* SPDX-License-Identifier: Apache-2.0 */
/* Registrations for membarrier(2), each in a process of its own, one with threads; and a process with none.
 */
#include <linux/membarrier.h>
#include <pthread.h>
#include <sys/syscall.h>

#include "zdtm.h"

#define N 4

static const struct {
	int registration, command;
} kinds[N] = {
	{MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, MEMBARRIER_CMD_PRIVATE_EXPEDITED},
	{MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_SYNC_CORE, MEMBARRIER_CMD_PRIVATE_EXPEDITED_SYNC_CORE},
	{MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_RSEQ, MEMBARRIER_CMD_PRIVATE_EXPEDITED_RSEQ},
	{0, 0},
};

static int barrier(int command)
{
	return (int)syscall(SYS_membarrier, command, 0, 0);
}

static void *idle(void *p)
{
	test_wait();
	return p;
}

static void check(int mine)
{
	for (int i = 0; i < N; i++) {
		if (!kinds[i].command)
			continue;
		int r = barrier(kinds[i].command);

		if (i == mine)
			CHECK(r == 0, "process %d is not registered any more", mine);
		/* To be registered for one that comes with the core or the sequences includes the plain one.
		 */
		else if (i != 0)
			CHECK(r == -1 && errno == EPERM, "process %d is registered for %d", mine, i);
	}
}

int main(int argc, char **argv)
{
	volatile int *ready;
	pid_t child[N];

	test_init(argc, argv);
	ready = test_shared_flags(N);
	if (barrier(MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED) < 0)
		test_skip("no membarrier: %s", strerror(errno));
	for (int i = 0; i < N; i++) {
		child[i] = test_fork();
		if (child[i])
			continue;
		pthread_t t;

		if (i == 1)
			MUST0(pthread_create(&t, NULL, idle, NULL));
		if (kinds[i].registration && barrier(kinds[i].registration) < 0)
			test_skip("no membarrier %d: %s", i, strerror(errno));
		check(i);
		ready[i] = 1;
		test_wait();
		if (i == 1)
			MUST0(pthread_join(t, NULL));
		check(i);
		_exit(7);
	}
	for (int i = 0; i < N; i++)
		while (!ready[i])
			test_sleep_ms(1);
	test_ready();
	test_wait();
	CHECK(barrier(MEMBARRIER_CMD_PRIVATE_EXPEDITED) == 0, "the root is not registered any more");
	for (int i = 0; i < N; i++)
		test_reap(child[i], 7);
	test_pass();
}
