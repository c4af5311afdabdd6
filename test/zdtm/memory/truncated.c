/* SPDX-License-Identifier: Apache-2.0 */
/* A mapped memfd that shrinks and grows while it is copied: what was cut off comes back as zeros. */
#include <sys/mman.h>

#include "zdtm.h"

#define PAGES 256

static uint64_t seed[PAGES];
static char *shared;

static void check(int i)
{
	if (seed[i])
		test_check_fill(shared + i * 4096L, 4096, seed[i], "written page");
	else
		CHECK(!memcmp(shared + i * 4096L, (char[4096]){0}, 4096),
		      "page %d was cut off, but holds data", i);
}

int main(int argc, char **argv)
{
	uint64_t state = 99, writes = 0;
	int fd;

	test_init(argc, argv);
	fd = MUST(memfd_create("truncated", 0));
	MUST(ftruncate(fd, PAGES * 4096));
	shared = MUST(mmap(NULL, PAGES * 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
	test_ready();
	do {
		for (int n = 0; n < 10; n++) {
			int i = (int)(test_random(&state) % PAGES);

			if (n == 9) {
				i = PAGES / 2 + i / 2;
				MUST(ftruncate(fd, i * 4096L));
				MUST(ftruncate(fd, PAGES * 4096L));
				memset(&seed[i], 0, (PAGES - i) * sizeof(seed[0]));
				continue;
			}
			check(i);
			seed[i] = ++writes;
			test_fill(shared + i * 4096L, 4096, seed[i]);
		}
	} while (test_wait_ms(1));
	for (int i = 0; i < PAGES; i++)
		check(i);
	test_pass();
}
