/* SPDX-License-Identifier: Apache-2.0 */
/* Deleted files that are still open: content, holes, offset, two descriptions of one file, and no name comes
 * back. */
#include <fcntl.h>
#include <sys/stat.h>

#include "zdtm.h"

#define SIZE (100 << 10)

int main(int argc, char **argv)
{
	static char buf[SIZE];
	struct stat st, other;
	int fd, again, tmp, empty;

	test_init(argc, argv);
	fd = MUST(open(test_path("gone"), O_RDWR | O_CREAT, 0604));
	MUST(fchmod(fd, 0604));
	test_fill(buf, SIZE, 1);
	CHECK_EQ(write(fd, buf, SIZE), SIZE);
	CHECK_EQ(pwrite(fd, "far", 3, 10 << 20), 3);
	again = MUST(open(test_path("gone"), O_RDONLY | O_APPEND));
	MUST(lseek(again, 4096, SEEK_SET));
	MUST(unlink(test_path("gone")));
	tmp = MUST(open(test_path("."), O_RDWR | O_TMPFILE, 0600));
	CHECK_EQ(write(tmp, "temporary", 9), 9);
	empty = MUST(open(test_path("gone"), O_RDWR | O_CREAT | O_EXCL, 0600)); /* the same name again */
	MUST(unlink(test_path("gone")));
	test_ready();
	test_wait();
	MUST(fstat(fd, &st));
	CHECK_EQ(st.st_nlink, 0);
	CHECK_EQ(st.st_size, (10 << 20) + 3);
	CHECK_EQ(st.st_mode & 07777, 0604);
	CHECK(st.st_blocks < 4096, "the hole was filled: %ld blocks", (long)st.st_blocks);
	CHECK_EQ(lseek(fd, 0, SEEK_CUR), SIZE);
	CHECK_EQ(lseek(again, 0, SEEK_CUR), 4096);
	MUST(fstat(again, &other));
	CHECK(st.st_ino == other.st_ino && st.st_dev == other.st_dev, "two files instead of one");
	CHECK_EQ(fcntl(again, F_GETFL) & (O_APPEND | O_ACCMODE), O_RDONLY | O_APPEND);
	CHECK_EQ(pread(again, buf, SIZE, 0), SIZE);
	test_check_fill(buf, SIZE, 1, "content");
	CHECK_EQ(pread(fd, buf, 10, 10 << 20), 3);
	CHECK(!memcmp(buf, "far", 3), "content behind the hole");
	CHECK_EQ(pwrite(fd, "new", 3, 0), 3);
	CHECK_EQ(pread(again, buf, 3, 0), 3);
	CHECK(!memcmp(buf, "new", 3), "the second descriptor does not see what was written");
	CHECK_EQ(pread(tmp, buf, 20, 0), 9);
	CHECK(!memcmp(buf, "temporary", 9), "content of the temporary file");
	MUST(fstat(empty, &other));
	CHECK(other.st_size == 0 && other.st_nlink == 0 && other.st_ino != st.st_ino,
	      "the empty deleted file");
	CHECK(access(test_path("gone"), F_OK), "the deleted file is back");
	test_pass();
}
