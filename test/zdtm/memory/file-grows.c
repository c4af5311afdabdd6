/* SPDX-License-Identifier: Apache-2.0 */
/* Files grow while they are mapped beyond their end: pages behind the end of the first look are written, in a
 * private mapping and in a shared one. */
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "zdtm.h"

#define PAGES 2048UL

static char *map(const char *name, int flags, int *ret_fd)
{
	*ret_fd = MUST(open(test_path(name), O_RDWR | O_CREAT | O_TRUNC, 0644));
	MUST(ftruncate(*ret_fd, 4096));
	return MUST(mmap(NULL, PAGES * 4096, PROT_READ | PROT_WRITE, flags, *ret_fd, 0));
}

int main(int argc, char **argv)
{
	size_t n = 1;
	int fd[2];
	char *mem[2];

	test_init(argc, argv);
	mem[0] = map("private", MAP_PRIVATE, &fd[0]);
	mem[1] = map("shared", MAP_SHARED, &fd[1]);
	test_ready();
	while (test_wait_ms(2)) {
		if (n == PAGES)
			continue;
		for (int i = 0; i < 2; i++) {
			MUST(ftruncate(fd[i], (off_t)((n + 1) * 4096)));
			mem[i][n * 4096 + 7] = (char)(n + 1);
		}
		n++;
	}
	for (int i = 0; i < 2; i++) {
		struct stat st;

		MUST(fstat(fd[i], &st));
		CHECK_EQ((uint64_t)st.st_size, n * 4096);
		for (size_t k = 1; k < n; k++)
			CHECK_EQ(mem[i][k * 4096 + 7], (char)(k + 1));
		MUST(ftruncate(fd[i], PAGES * 4096));
		mem[i][(PAGES - 1) * 4096] = 1;
	}
	test_pass();
}
