/* SPDX-License-Identifier: Apache-2.0 */
/* A deleted directory: two processes in it, and a descriptor of it. */
#include <fcntl.h>
#include <limits.h>
#include <sys/stat.h>

#include "zdtm.h"

static void check_here(ino_t ino, dev_t dev)
{
	struct stat st;
	char buf[PATH_MAX];

	MUST(stat(".", &st));
	CHECK(st.st_ino == ino && st.st_dev == dev, "not in the deleted directory");
	CHECK_EQ(st.st_nlink, 0);
	CHECK(!getcwd(buf, sizeof(buf)) && errno == ENOENT, "the directory has a name: %s", buf);
	CHECK(open("new", O_CREAT | O_WRONLY, 0600) == -1 && errno == ENOENT, "a file can be made in it");
}

int main(int argc, char **argv)
{
	struct stat st;
	int fd;
	pid_t child;

	test_init(argc, argv);
	MUST(mkdir(test_path("gone"), 0710));
	MUST(chown(test_path("gone"), 12, 34));
	fd = MUST(open(test_path("gone"), O_RDONLY | O_DIRECTORY));
	MUST(chdir(test_path("gone")));
	MUST(rmdir(test_path("gone")));
	child = test_fork();
	if (!child) {
		test_wait();
		MUST(fstat(fd, &st));
		check_here(st.st_ino, st.st_dev);
		_exit(1);
	}
	test_ready();
	test_wait();
	MUST(fstat(fd, &st));
	CHECK_EQ(st.st_mode & 07777, 0710);
	CHECK(st.st_uid == 12 && st.st_gid == 34, "owner %d, group %d", st.st_uid, st.st_gid);
	check_here(st.st_ino, st.st_dev);
	CHECK(access(test_path("gone"), F_OK), "the deleted directory is back");
	test_reap(child, 1);
	test_pass();
}
