/* SPDX-License-Identifier: Apache-2.0 */
/* Regular files: offset, access mode and status flags, append mode, a file opened twice, a name with spaces
 * and a newline. */
#include <fcntl.h>
#include <sys/stat.h>

#include "zdtm.h"

#define COUNT 7

static const struct opened {
	const char *name;
	int flags;
	off_t offset;
} opened[COUNT] = {
	{"plain", O_RDWR, 1234},
	{"plain", O_RDONLY, 5},
	{"plain", O_WRONLY | O_NONBLOCK, 4000},
	{"append", O_WRONLY | O_APPEND, 7},
	{"sync", O_RDWR | O_SYNC, 100000},
	{"dsync", O_RDWR | O_DSYNC | O_NOATIME, 0},
	{"a name\nwith (deleted)", O_RDWR | O_CLOEXEC, 1L << 33},
};

int main(int argc, char **argv)
{
	static char content[8192], buf[8192];
	struct stat before[COUNT], after;
	int fd[COUNT], flags[COUNT];

	test_init(argc, argv);
	test_fill(content, sizeof(content), 1);
	for (int i = 0; i < COUNT; i++) {
		int f = MUST(open(test_path(opened[i].name), O_WRONLY | O_CREAT, 0640));

		CHECK_EQ(write(f, content, sizeof(content)), sizeof(content));
		MUST(close(f));
	}
	for (int i = 0; i < COUNT; i++) {
		fd[i] = MUST(open(test_path(opened[i].name), opened[i].flags));
		CHECK_EQ(lseek(fd[i], opened[i].offset, SEEK_SET), opened[i].offset);
		flags[i] = MUST(fcntl(fd[i], F_GETFL));
		MUST(fstat(fd[i], &before[i]));
	}
	test_ready();
	test_wait();
	for (int i = 0; i < COUNT; i++) {
		MUST(fstat(fd[i], &after));
		CHECK(after.st_ino == before[i].st_ino && after.st_dev == before[i].st_dev &&
			      after.st_size == before[i].st_size,
		      "another file at %d", fd[i]);
		CHECK_EQ(lseek(fd[i], 0, SEEK_CUR), opened[i].offset);
		CHECK(fcntl(fd[i], F_GETFL) == flags[i], "descriptor %d has flags 0%o, had 0%o", fd[i],
		      fcntl(fd[i], F_GETFL), flags[i]);
		CHECK_EQ(fcntl(fd[i], F_GETFD), opened[i].flags & O_CLOEXEC ? FD_CLOEXEC : 0);
	}
	CHECK_EQ(read(fd[1], buf, 100), 100);
	CHECK(!memcmp(buf, content + 5, 100), "other content");
	CHECK_EQ(write(fd[3], "end", 3), 3);
	CHECK_EQ(lseek(fd[3], 0, SEEK_CUR), (off_t)sizeof(content) + 3);
	CHECK(write(fd[1], "x", 1) == -1 && errno == EBADF, "a read-only file can be written");
	CHECK(read(fd[2], buf, 1) == -1 && errno == EBADF, "a write-only file can be read");
	test_pass();
}
