/* SPDX-License-Identifier: Apache-2.0 */
/* A large memfd that is only written by descriptor, and mapped but hardly touched: /proc shows next to
 * nothing of its memory. */
#include <fcntl.h>
#include <sys/mman.h>

#include "zdtm.h"

#define SIZE  (24u << 20)
#define PIECE (1u << 20)

int main(int argc, char **argv)
{
	static char buf[PIECE];
	char *map;
	int fd;

	test_init(argc, argv);
	fd = MUST(memfd_create("large", MFD_CLOEXEC));
	for (unsigned i = 0; i < SIZE / PIECE; i++) {
		test_fill(buf, PIECE, i + 1);
		CHECK_EQ(pwrite(fd, buf, PIECE, (off_t)i * PIECE), PIECE);
	}
	map = MUST(mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
	map[0]++;
	test_ready();
	test_wait();
	map[0]--;
	for (unsigned i = 0; i < SIZE / PIECE; i++)
		test_check_fill(map + (size_t)i * PIECE, PIECE, i + 1, "memfd");
	test_pass();
}
