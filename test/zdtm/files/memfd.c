/* SPDX-License-Identifier: Apache-2.0 */
/* memfds: content, seals, mapped and not, shared by two processes, opened twice. */
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "zdtm.h"

#define SIZE (1 << 20)

int main(int argc, char **argv)
{
	static char buf[SIZE];
	int open_seals, sealed, second, seals;
	char path[64], *map, link[2][256] = {"", ""};
	struct stat a, b;
	pid_t child;

	test_init(argc, argv);
	open_seals = MUST(memfd_create("a name", 0));
	MUST(ftruncate(open_seals, SIZE));
	map = MUST(mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, open_seals, 0));
	test_fill(map, SIZE / 2, 1);
	sealed = MUST(memfd_create("sealed", MFD_ALLOW_SEALING | MFD_CLOEXEC));
	test_fill(buf, SIZE, 2);
	CHECK_EQ(write(sealed, buf, 5000), 5000);
	MUST(fcntl(sealed, F_ADD_SEALS, F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_WRITE));
	seals = MUST(fcntl(sealed, F_GET_SEALS));
	snprintf(path, sizeof(path), "/proc/self/fd/%d", open_seals);
	second = MUST(open(path, O_RDONLY));
	MUST(lseek(second, 4096, SEEK_SET));
	MUST(readlink(path, link[0], sizeof(link[0]) - 1));
	child = test_fork();
	if (!child) {
		test_wait();
		while (map[SIZE - 1] != 'p')
			test_sleep_ms(1);
		CHECK_EQ(write(open_seals, "child", 5), 5);
		_exit(3);
	}
	test_ready();
	test_wait();
	test_check_fill(map, SIZE / 2, 1, "mapped memfd");
	CHECK_EQ(map[SIZE / 2 + 5], 0);
	map[SIZE - 1] = 'p';
	test_reap(child, 3);
	CHECK(!memcmp(map, "child", 5), "what the child wrote is not in the map");
	MUST(readlink(path, link[1], sizeof(link[1]) - 1));
	CHECK(!strcmp(link[0], link[1]), "the name is %s, was %s", link[1], link[0]);
	MUST(fstat(open_seals, &a));
	MUST(fstat(second, &b));
	CHECK(a.st_ino == b.st_ino && a.st_size == SIZE, "two files instead of one");
	CHECK_EQ(lseek(second, 0, SEEK_CUR), 4096);
	CHECK_EQ(lseek(open_seals, 0, SEEK_CUR), 5);
	CHECK(write(second, "x", 1) == -1 && errno == EBADF, "the second descriptor can be written");
	CHECK_EQ(fcntl(sealed, F_GET_SEALS), seals);
	CHECK_EQ(pread(sealed, buf, SIZE, 0), 5000);
	test_check_fill(buf, 5000, 2, "sealed memfd");
	CHECK(pwrite(sealed, "x", 1, 0) == -1 && errno == EPERM, "the sealed memfd can be written");
	CHECK_EQ(fcntl(open_seals, F_GET_SEALS), F_SEAL_SEAL);
	test_pass();
}
