/* SPDX-License-Identifier: Apache-2.0 */
/* An open deleted directory whose name another one has now. */
#include <fcntl.h>
#include <sys/stat.h>

#include "zdtm.h"

int main(int argc, char **argv)
{
	struct stat st, other;
	int fd;

	test_init(argc, argv);
	MUST(mkdir(test_path("taken"), 0710));
	fd = MUST(open(test_path("taken"), O_RDONLY | O_DIRECTORY));
	MUST(rmdir(test_path("taken")));
	MUST(mkdir(test_path("taken"), 0700));
	test_ready();
	test_wait();
	MUST(fstat(fd, &st));
	CHECK_EQ(st.st_nlink, 0);
	CHECK_EQ(st.st_mode & 07777, 0710);
	MUST(stat(test_path("taken"), &other));
	CHECK(other.st_nlink > 0 && other.st_ino != st.st_ino, "the directory that has its name now");
	test_pass();
}
