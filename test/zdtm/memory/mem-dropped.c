/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pages are dropped while they are copied: what MADV_DONTNEED took must read as zero (anonymous) or as the
 * file (private file map), not as what an earlier round saw.  A table keeps what each page must hold.
 */
#include <fcntl.h>
#include <sys/mman.h>

#include "zdtm.h"

#define PAGES 2048

static char file[PAGES][4096] __attribute__((aligned(4096)));
static uint64_t seed[2][PAGES];

static void check(char *p, int map, int i)
{
	char *page = p + (size_t)i * 4096;

	if (seed[map][i]) {
		test_check_fill(page, 4096, seed[map][i],
				map ? "written page of the file map" : "written page");
		return;
	}
	CHECK(!memcmp(page, map ? file[i] : (char[4096]){0}, 4096),
	      "%s: page %d at %p holds what was dropped", map ? "file map" : "anonymous", i, page);
}

int main(int argc, char **argv)
{
	uint64_t state = 4711, writes = 0;
	char *map[2];
	int fd;

	test_init(argc, argv);
	test_fill(file, sizeof(file), 99);
	fd = MUST(open(test_path("file"), O_RDWR | O_CREAT, 0644));
	CHECK_EQ(write(fd, file, sizeof(file)), sizeof(file));
	map[0] = test_map(sizeof(file), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS);
	map[1] = MUST(mmap(NULL, sizeof(file), PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0));
	for (int m = 0; m < 2; m++) {
		for (int i = 0; i < PAGES; i++) {
			seed[m][i] = ++writes;
			test_fill(map[m] + (size_t)i * 4096, 4096, seed[m][i]);
		}
	}
	test_ready();
	while (test_wait_ms(1)) {
		for (int n = 0; n < 20; n++) {
			int m = n % 2, i = (int)(test_random(&state) % PAGES);
			int len = (int)(test_random(&state) % 16) + 1;

			check(map[m], m, i);
			if (n % 3 == 0) {
				seed[m][i] = ++writes;
				test_fill(map[m] + (size_t)i * 4096, 4096, seed[m][i]);
				continue;
			}
			if (len > PAGES - i)
				len = PAGES - i;
			MUST(madvise(map[m] + (size_t)i * 4096, (size_t)len * 4096, MADV_DONTNEED));
			memset(&seed[m][i], 0, (size_t)len * sizeof(seed[m][0]));
		}
	}
	for (int m = 0; m < 2; m++)
		for (int i = 0; i < PAGES; i++)
			check(map[m], m, i);
	test_pass();
}
