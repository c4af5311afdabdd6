/* SPDX-License-Identifier: Apache-2.0 */
/* A System V segment in huge pages. */
#include <sys/shm.h>

#include "zdtm.h"

int main(int argc, char **argv)
{
	int id;

	test_init(argc, argv);
	id = shmget(IPC_PRIVATE, 2 << 20, IPC_CREAT | SHM_HUGETLB | SHM_NORESERVE | 0600);
	if (id < 0)
		test_skip("no huge pages: %s", strerror(errno));
	if (shmat(id, NULL, 0) == (void *)-1)
		test_skip("no huge pages: %s", strerror(errno));
	MUST(shmctl(id, IPC_RMID, NULL));
	test_ready();
	test_wait();
	test_pass();
}
