/* SPDX-License-Identifier: Apache-2.0 */
/* Pages in swap are copied without being brought back: memory that is limited is not needed for it. */
#include <fcntl.h>
#include <sys/mman.h>

#include "memory.h"

#define PAGES 2048
#define SIZE  (PAGES * 4096UL)

static size_t in_swap(const char *p)
{
	static uint64_t words[PAGES];
	size_t n = 0;
	int fd = MUST(open("/proc/self/pagemap", O_RDONLY));

	CHECK(pread(fd, words, sizeof(words), (uintptr_t)p / 4096 * 8) == sizeof(words), "read pagemap");
	close(fd);
	for (int i = 0; i < PAGES; i++)
		n += words[i] >> 62 & 1;
	return n;
}

int main(int argc, char **argv)
{
	size_t before = 0, after;
	char *p;

	test_init(argc, argv);
	p = mem_alone(SIZE);
	for (uint64_t i = 0; i < PAGES; i++)
		test_fill(p + i * 4096, 4096, i);
	for (int i = 0; i < 100 && before < PAGES * 9 / 10; i++) {
		MUST(madvise(p, SIZE, MADV_PAGEOUT));
		test_sleep_ms(5);
		before = in_swap(p);
	}
	if (before < PAGES * 9 / 10)
		test_skip("pages do not go to swap here");
	test_ready();
	while (test_wait_ms(10))
		;
	after = in_swap(p);
	CHECK(after >= before / 2, "of %zu pages in swap %zu are left", before, after);
	for (uint64_t i = 0; i < PAGES; i++)
		test_check_fill(p + i * 4096, 4096, i, "page in swap");
	test_pass();
}
