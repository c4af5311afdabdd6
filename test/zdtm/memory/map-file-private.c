/* SPDX-License-Identifier: Apache-2.0 */
/* Private file maps: untouched pages come from the file, changed ones are our own; a map with an offset;
 * read-only and executable. */
#include <fcntl.h>
#include <sys/mman.h>

#include "zdtm.h"

#define SIZE (64 * 4096)

int main(int argc, char **argv)
{
	static char content[SIZE];
	char *p, *q;
	int fd;

	test_init(argc, argv);
	test_fill(content, SIZE, 1);
	fd = MUST(open(test_path("file"), O_RDWR | O_CREAT, 0644));
	CHECK_EQ(write(fd, content, SIZE), SIZE);
	p = MUST(mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0));
	q = MUST(mmap(NULL, SIZE / 2, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd, SIZE / 2));
	MUST(close(fd));
	for (int i = 0; i < 64; i += 3)
		test_fill(p + i * 4096, 4096, 100 + i);
	test_ready();
	test_wait();
	for (int i = 0; i < 64; i++) {
		if (i % 3 == 0)
			test_check_fill(p + i * 4096, 4096, 100 + i, "a page of our own");
		else
			CHECK(!memcmp(p + i * 4096, content + i * 4096, 4096),
			      "page %d is not that of the file", i);
	}
	CHECK(!memcmp(q, content + SIZE / 2, SIZE / 2), "the read-only map");
	test_fill(p, SIZE, 5);
	test_check_fill(p, SIZE, 5, "written anew");
	fd = MUST(open(test_path("file"), O_RDONLY));
	CHECK_EQ(pread(fd, p, SIZE, 0), SIZE);
	CHECK(!memcmp(p, content, SIZE), "the file itself was changed");
	test_pass();
}
