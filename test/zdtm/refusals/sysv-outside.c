/* SPDX-License-Identifier: Apache-2.0 */
/* A System V segment that a process outside of the tree has attached too. */
#include <sys/shm.h>

#include "zdtm.h"

int main(int argc, char **argv)
{
	pid_t middle;
	int id;
	char *p;

	test_init(argc, argv);
	id = MUST(shmget(IPC_PRIVATE, 4096, IPC_CREAT | 0600));
	p = shmat(id, NULL, 0);
	MUST(shmctl(id, IPC_RMID, NULL));
	middle = test_fork();
	if (!middle) {
		if (!test_fork()) {
			while (((volatile char *)p)[0] != 'x')
				test_sleep_ms(2);
			p[1] = 'y';
			_exit(0);
		}
		_exit(0);
	}
	test_reap(middle, 0);
	test_ready();
	test_wait();
	p[0] = 'x';
	while (((volatile char *)p)[1] != 'y')
		test_sleep_ms(2);
	test_pass();
}
