/* SPDX-License-Identifier: Apache-2.0 */
/* umask and working directory, of the process and of a child that differs. */
#include <sys/stat.h>

#include "zdtm.h"

static void check(mode_t mask, const char *dir)
{
	char cwd[4096];
	struct stat here, want;

	test_wait();
	CHECK_EQ(umask(mask), mask);
	CHECK(getcwd(cwd, sizeof(cwd)), "getcwd");
	CHECK(!strcmp(cwd, dir), "cwd is %s, was %s", cwd, dir);
	MUST(stat(".", &here));
	MUST(stat(dir, &want));
	CHECK_EQ(here.st_ino, want.st_ino);
	CHECK(!access("marker", F_OK), "a file in the working directory is not found");
}

int main(int argc, char **argv)
{
	char dir[4096], inner[4200];
	pid_t child;

	test_init(argc, argv);
	snprintf(dir, sizeof(dir), "%s", test_path("work"));
	snprintf(inner, sizeof(inner), "%s/a directory with spaces", dir);
	MUST(mkdir(dir, 0755));
	MUST(mkdir(inner, 0700));
	MUST(chdir(dir));
	test_write_file("marker", "");
	child = test_fork();
	if (!child) {
		MUST(chdir(inner));
		test_write_file("marker", "");
		umask(0);
		test_write_file(test_path("child-up"), "");
		check(0, inner);
		_exit(4);
	}
	umask(0137);
	while (access(test_path("child-up"), F_OK))
		test_sleep_ms(1);
	errno = 0;
	test_ready();
	check(0137, dir);
	umask(022);
	test_reap(child, 4);
	test_pass();
}
