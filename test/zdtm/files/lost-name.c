/* SPDX-License-Identifier: Apache-2.0 */
/* A file that has lost the name it was opened by, with another one in the same directory: still the same
 * file. */
#include <fcntl.h>
#include <sys/stat.h>

#include "zdtm.h"

int main(int argc, char **argv)
{
	struct stat st, other, named;
	char buf[16];
	int fd, again;

	test_init(argc, argv);
	fd = MUST(open(test_path("first"), O_RDWR | O_CREAT, 0640));
	again = MUST(open(test_path("first"), O_RDONLY | O_APPEND));
	CHECK_EQ(write(fd, "content", 7), 7);
	MUST(link(test_path("first"), test_path("second")));
	MUST(unlink(test_path("first")));
	test_ready();
	test_wait();
	MUST(fstat(fd, &st));
	MUST(fstat(again, &other));
	MUST(stat(test_path("second"), &named));
	CHECK(st.st_ino == named.st_ino && other.st_ino == named.st_ino, "it is another file");
	CHECK_EQ(named.st_nlink, 1);
	CHECK(access(test_path("first"), F_OK), "the name is back");
	CHECK_EQ(lseek(fd, 0, SEEK_CUR), 7);
	CHECK_EQ(write(fd, " more", 5), 5);
	CHECK_EQ(read(again, buf, sizeof(buf)), 12);
	CHECK(!memcmp(buf, "content more", 12), "other content");
	test_pass();
}
