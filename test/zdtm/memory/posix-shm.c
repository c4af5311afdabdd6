/* SPDX-License-Identifier: Apache-2.0 */
/* POSIX shared memory: mapped by two processes, one of them read-only, open, and one that is only mapped. */
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "zdtm.h"

#define SIZE (5 * 4096 + 50)

int main(int argc, char **argv)
{
	struct stat was, now;
	char *p, *ro, *other, link[2][128] = {"", ""}, self[64];
	int fd, fd2;
	pid_t child;

	test_init(argc, argv);
	fd = MUST(shm_open("/ferry-posix-shm", O_RDWR | O_CREAT | O_EXCL, 0640));
	MUST(ftruncate(fd, SIZE));
	MUST(fchown(fd, 3, 4));
	p = MUST(mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
	test_fill(p, SIZE / 8 * 8, 1);
	MUST(lseek(fd, 33, SEEK_SET));
	fd2 = MUST(shm_open("/ferry-posix-shm", O_RDONLY, 0));
	ro = MUST(mmap(NULL, SIZE, PROT_READ, MAP_SHARED, fd2, 0));
	close(fd2);
	fd2 = MUST(open("/dev/shm/ferry-other", O_RDWR | O_CREAT | O_EXCL, 0600));
	MUST(ftruncate(fd2, 3 * 4096));
	other = MUST(mmap(NULL, 3 * 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd2, 0));
	close(fd2);
	other[4096] = 'o';
	child = test_fork();
	if (child == 0) {
		test_wait();
		while (((volatile char *)p)[0] != 'p')
			test_sleep_ms(1);
		p[1] = 'c';
		_exit(4);
	}
	MUST(fstat(fd, &was));
	snprintf(self, sizeof(self), "/proc/self/fd/%d", fd);
	MUST(readlink(self, link[0], sizeof(link[0]) - 1));
	test_ready();
	test_wait();
	test_check_fill(p, SIZE / 8 * 8, 1, "shared memory");
	MUST(fstat(fd, &now));
	CHECK(now.st_size == was.st_size && now.st_mode == was.st_mode && now.st_uid == 3 && now.st_gid == 4,
	      "size, mode or owner differ");
	MUST(readlink(self, link[1], sizeof(link[1]) - 1));
	CHECK(!strcmp(link[0], link[1]), "the name is %s, was %s", link[1], link[0]);
	MUST(stat("/dev/shm/ferry-posix-shm", &was));
	CHECK(was.st_ino == now.st_ino, "the name leads to another file");
	CHECK_EQ(lseek(fd, 0, SEEK_CUR), 33);
	p[0] = 'p';
	test_reap(child, 4);
	CHECK_EQ(ro[1], 'c');
	CHECK(mprotect(ro, 4096, PROT_READ | PROT_WRITE) == -1 && errno == EACCES,
	      "the read-only mapping can be written");
	CHECK_EQ(other[4096], 'o');
	CHECK_EQ(other[0], 0);
	MUST(shm_unlink("/ferry-posix-shm"));
	MUST(shm_unlink("/ferry-other"));
	test_pass();
}
