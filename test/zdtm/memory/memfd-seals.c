/* SPDX-License-Identifier: Apache-2.0 */
/* Sealed memfds that are mapped, in ways that must still be allowed to be sealed, and modes. */
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "zdtm.h"

#define SIZE (4 * 4096)

#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x10
#endif
#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 8
#define MFD_EXEC        0x10
#endif

static const int seals[] = {F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK, F_SEAL_FUTURE_WRITE | F_SEAL_SEAL,
			    F_SEAL_WRITE | F_SEAL_SEAL, 0, 0};
static const unsigned flags[] = {MFD_ALLOW_SEALING, MFD_ALLOW_SEALING, MFD_ALLOW_SEALING, MFD_NOEXEC_SEAL,
				 MFD_EXEC};
#define COUNT 5

int main(int argc, char **argv)
{
	int fd[COUNT], had[COUNT];
	struct stat was[COUNT], now;
	char *map[COUNT], *private;

	test_init(argc, argv);
	for (int i = 0; i < COUNT; i++) {
		char name[16];

		snprintf(name, sizeof(name), "sealed-%d", i);
		fd[i] = memfd_create(name, MFD_CLOEXEC | flags[i]);
		if (fd[i] < 0 && errno == EINVAL)
			test_skip("no memfd with flags 0x%x", flags[i]);
		MUST(ftruncate(fd[i], SIZE));
		map[i] = MUST(mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd[i], 0));
		test_fill(map[i], SIZE, i);
		if (seals[i] & F_SEAL_WRITE)
			MUST(munmap(map[i], SIZE));
		if (seals[i])
			MUST(fcntl(fd[i], F_ADD_SEALS, seals[i]));
	}
	MUST(fchown(fd[3], 7, 8));
	MUST(fchmod(fd[4], 0751));
	map[0] = MUST(mmap(NULL, SIZE, PROT_READ, MAP_PRIVATE, fd[0], 0));
	/* Before Linux 6.7 a sealed memfd cannot be mapped shared through a descriptor that can write. */
	map[2] = mmap(NULL, SIZE, PROT_READ, MAP_SHARED, fd[2], 0);
	if (map[2] == MAP_FAILED) {
		char path[64];
		int ro;

		snprintf(path, sizeof(path), "/proc/self/fd/%d", fd[2]);
		ro = MUST(open(path, O_RDONLY));
		map[2] = MUST(mmap(NULL, SIZE, PROT_READ, MAP_SHARED, ro, 0));
		close(ro);
	}
	private = MUST(mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd[2], 0));
	private[4096] = 'x';
	for (int i = 0; i < COUNT; i++) {
		had[i] = MUST(fcntl(fd[i], F_GET_SEALS));
		MUST(fstat(fd[i], &was[i]));
	}
	test_ready();
	test_wait();
	for (int i = 0; i < COUNT; i++) {
		test_check_fill(map[i], SIZE, i, "a sealed memfd");
		CHECK(fcntl(fd[i], F_GET_SEALS) == had[i], "memfd %d has seals 0x%x, had 0x%x", i,
		      fcntl(fd[i], F_GET_SEALS), had[i]);
		MUST(fstat(fd[i], &now));
		CHECK(now.st_mode == was[i].st_mode && now.st_uid == was[i].st_uid &&
			      now.st_gid == was[i].st_gid,
		      "memfd %d has mode 0%o and owner %d:%d", i, now.st_mode, now.st_uid, now.st_gid);
	}
	CHECK_EQ(private[4096], 'x');
	CHECK(mprotect(map[2], 4096, PROT_READ | PROT_WRITE) == -1 && errno == EACCES,
	      "the sealed memfd can be written");
	map[1][0] = 'w'; /* a mapping from before the seal */
	errno = 0;
	CHECK(pwrite(fd[1], "w", 1, 0) == -1 && errno == EPERM, "F_SEAL_FUTURE_WRITE does not hold");
	CHECK(fchmod(fd[3], 0777) == -1 && errno == EPERM, "a memfd that may not be executed now may");
	test_pass();
}
