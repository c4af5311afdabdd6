/* SPDX-License-Identifier: Apache-2.0 */
/* lock-holder posix|flock|shared FILE PIDFILE: lock all of the file, write the pid to PIDFILE and stay, in
 * the background. */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	struct flock all = {.l_type = F_WRLCK, .l_whence = SEEK_SET};

	if (argc != 4)
		return 2;
	int fd = open(argv[2], O_RDWR);

	if (fd < 0) {
		perror(argv[2]);
		return 1;
	}
	if (fork() > 0)
		return 0;
	setsid();
	if (!strcmp(argv[1], "posix") ? fcntl(fd, F_SETLK, &all) < 0
				      : flock(fd, !strcmp(argv[1], "shared") ? LOCK_SH : LOCK_EX) < 0) {
		perror("lock");
		return 1;
	}
	FILE *f = fopen(argv[3], "we");

	if (!f)
		return 1;
	fprintf(f, "%d\n", getpid());
	fclose(f);
	for (;;)
		pause();
}
