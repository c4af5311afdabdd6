/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Somebody else's hand on shared memory:
 *   shm-holder create KEY SIZE       make a System V segment and end
 *   shm-holder attach KEY PIDFILE    attach one, in a process of its own that stays
 *   shm-holder map FILE PIDFILE      map a file shared, likewise
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <unistd.h>

static int hold(const char *pidfile)
{
	FILE *f;

	if (fork())
		return 0;
	f = fopen(pidfile, "w");
	if (!f || fprintf(f, "%d\n", (int)getpid()) < 0 || fclose(f))
		return 1;
	pause();
	return 0;
}

int main(int argc, char **argv)
{
	if (argc != 4)
		return 2;
	if (!strcmp(argv[1], "create"))
		return shmget((key_t)strtoul(argv[2], NULL, 0), strtoul(argv[3], NULL, 0),
			      IPC_CREAT | IPC_EXCL | 0600) < 0;
	if (!strcmp(argv[1], "attach")) {
		int id = shmget((key_t)strtoul(argv[2], NULL, 0), 0, 0);

		return id < 0 || shmat(id, NULL, 0) == (void *)-1 ? 1 : hold(argv[3]);
	}
	int fd = open(argv[2], O_RDWR);

	return fd < 0 || mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0) == MAP_FAILED ? 1 : hold(argv[3]);
}
