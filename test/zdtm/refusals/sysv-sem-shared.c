/* SPDX-License-Identifier: Apache-2.0 */
/* A System V semaphore set that a process outside of the tree uses too. */
#include <sys/ipc.h>
#include <sys/sem.h>

#include "zdtm.h"

static void op(int id, int number, int by)
{
	struct sembuf b = {(unsigned short)number, (short)by, 0};

	MUST(semop(id, &b, 1));
}

int main(int argc, char **argv)
{
	int id;
	pid_t middle;

	test_init(argc, argv);
	id = MUST(semget(IPC_PRIVATE, 3, 0600));
	middle = test_fork();
	if (!middle) {
		if (!test_fork()) {
			op(id, 0, 1);
			op(id, 1, -1);
			op(id, 2, 1);
			_exit(0);
		}
		_exit(0);
	}
	test_reap(middle, 0);
	while (MUST(semctl(id, 0, GETVAL)) != 1)
		test_sleep_ms(2);
	op(id, 2, 1);
	test_ready();
	test_wait();
	op(id, 1, 1);
	op(id, 2, -2);
	MUST(semctl(id, 0, IPC_RMID));
	test_pass();
}
