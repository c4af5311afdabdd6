/* SPDX-License-Identifier: Apache-2.0 */
/* A process in a chroot: its root, and a file that it holds open in there. */
#include <fcntl.h>
#include <sys/stat.h>

#include "zdtm.h"

int main(int argc, char **argv)
{
	struct stat root, now;
	char buf[8];
	int fd;

	test_init(argc, argv);
	MUST(mkdir(test_path("inner"), 0755));
	test_write_file(test_path("inner/file"), "content");
	MUST(stat(test_path("."), &root));
	MUST(chroot(test_path(".")));
	MUST(chdir("/inner"));
	test_set_dir("");
	fd = MUST(open("/inner/file", O_RDONLY));
	MUST(lseek(fd, 3, SEEK_SET));
	test_ready();
	test_wait();
	MUST(stat("/", &now));
	CHECK(now.st_ino == root.st_ino && now.st_dev == root.st_dev, "another root directory");
	MUST(stat("/..", &now));
	CHECK_EQ(now.st_ino, root.st_ino);
	MUST(access("file", R_OK));
	CHECK_EQ(read(fd, buf, sizeof(buf)), 4);
	CHECK(!memcmp(buf, "tent", 4), "the open file has other content");
	test_pass();
}
