/* SPDX-License-Identifier: Apache-2.0 */
/* Pages that are in swap when they are copied, private and shared; some come back and are written meanwhile.
 */
#include <fcntl.h>
#include <sys/mman.h>

#include "memory.h"

#define PAGES 2048
#define SIZE  (PAGES * 4096UL)
#define FIRST (1UL << 32)

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
	char *p, *shared;
	uint64_t n = 0;

	test_init(argc, argv);
	p = mem_alone(SIZE);
	shared = test_map(SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS);
	for (uint64_t i = 0; i < PAGES; i++)
		test_fill(p + i * 4096, 4096, FIRST + i);
	test_fill(shared, SIZE, 2);
	for (int i = 0; i < 50 && in_swap(p) < PAGES / 2; i++) {
		MUST(madvise(p, SIZE, MADV_PAGEOUT));
		MUST(madvise(shared, SIZE, MADV_PAGEOUT));
		test_sleep_ms(1);
	}
	if (in_swap(p) < PAGES / 2)
		test_skip("pages do not go to swap here");
	test_ready();
	while (test_wait_ms(1)) {
		uint64_t i = n++ % (PAGES / 2);

		test_fill(p + i * 4096, 4096, n);
		if (n % 64 == 0)
			madvise(p, SIZE, MADV_PAGEOUT);
	}
	for (uint64_t i = 0; i < PAGES; i++) {
		/* The last time that it was page i's turn. */
		uint64_t turn = i < PAGES / 2 && n > i ? (n - 1 - i) / (PAGES / 2) * (PAGES / 2) + i + 1 : 0;

		test_check_fill(p + i * 4096, 4096, turn ? turn : FIRST + i,
				turn ? "written page" : "page in swap");
	}
	test_check_fill(shared, SIZE, 2, "shared memory");
	test_pass();
}
