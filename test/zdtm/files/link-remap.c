/* SPDX-License-Identifier: Apache-2.0 */
/* A file whose only name is in another directory than the one it was opened by: --link-remap. */
#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "zdtm.h"

static int count(const char *dir)
{
	DIR *d = opendir(test_path(dir));
	int n = 0;

	CHECK(d, "%s", dir);
	while (readdir(d))
		n++;
	closedir(d);
	return n - 2;
}

int main(int argc, char **argv)
{
	struct stat st, other, named;
	char buf[16];
	int fd, again;

	test_init(argc, argv);
	MUST(mkdir(test_path("here"), 0700));
	MUST(mkdir(test_path("there"), 0700));
	fd = MUST(open(test_path("here/file"), O_RDWR | O_CREAT, 0640));
	again = MUST(open(test_path("here/file"), O_RDONLY));
	CHECK_EQ(write(fd, "content", 7), 7);
	MUST(link(test_path("here/file"), test_path("there/file")));
	MUST(unlink(test_path("here/file")));
	test_ready();
	test_wait();
	MUST(fstat(fd, &st));
	MUST(fstat(again, &other));
	MUST(stat(test_path("there/file"), &named));
	CHECK(st.st_ino == named.st_ino && other.st_ino == named.st_ino, "it is another file");
	CHECK_EQ(named.st_nlink, 1);
	CHECK_EQ(count("here"), 0);
	CHECK_EQ(write(fd, " more", 5), 5);
	CHECK_EQ(read(again, buf, sizeof(buf)), 12);
	CHECK(!memcmp(buf, "content more", 12), "other content");
	test_pass();
}
