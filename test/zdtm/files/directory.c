/* SPDX-License-Identifier: Apache-2.0 */
/* Directory descriptors: openat works, reading goes on where it was; an O_PATH descriptor. */
#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "zdtm.h"

#define FILES 20

int main(int argc, char **argv)
{
	bool seen[FILES] = {0};
	char name[64];
	struct dirent *e;
	int fd, path;
	DIR *d;

	test_init(argc, argv);
	MUST(mkdir(test_path("dir"), 0755));
	for (int i = 0; i < FILES; i++) {
		snprintf(name, sizeof(name), "dir/file%d", i);
		test_write_file(test_path(name), name);
	}
	fd = MUST(open(test_path("dir"), O_RDONLY | O_DIRECTORY));
	path = MUST(open(test_path("dir/file3"), O_PATH));
	d = opendir(test_path("dir"));
	CHECK(d, "opendir");
	for (int i = 0; i < FILES / 2; i++) {
		e = readdir(d);
		CHECK(e, "readdir");
		if (e->d_name[0] == 'f')
			seen[atoi(e->d_name + 4)] = true;
	}
	test_ready();
	test_wait();
	while ((e = readdir(d)))
		if (e->d_name[0] == 'f') {
			int i = atoi(e->d_name + 4);

			CHECK(!seen[i], "%s was read twice", e->d_name);
			seen[i] = true;
		}
	for (int i = 0; i < FILES; i++)
		CHECK(seen[i], "file %d was not read", i);
	MUST(close(MUST(openat(fd, "file7", O_RDONLY))));
	MUST(fchdir(fd));
	MUST(access("file8", R_OK));
	snprintf(name, sizeof(name), "/proc/self/fd/%d", path);
	MUST(close(MUST(open(name, O_RDONLY))));
	CHECK(read(path, name, 1) == -1 && errno == EBADF, "the O_PATH descriptor can be read");
	test_pass();
}
