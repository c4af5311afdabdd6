/* SPDX-License-Identifier: Apache-2.0 */
/* Guard regions in mappings of files: private, shared, of a memfd. */
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>

#include "zdtm.h"

#define PAGES 16
#define COUNT 4

static sigjmp_buf back;

static void handler(int sig)
{
	(void)sig;
	siglongjmp(back, 1);
}

static bool reads(volatile char *p)
{
	if (sigsetjmp(back, 1))
		return false;
	(void)*p;
	return true;
}

int main(int argc, char **argv)
{
	char *p[COUNT];
	int fd[2];

	test_init(argc, argv);
	signal(SIGSEGV, handler);
	fd[0] = MUST(open(test_path("file"), O_RDWR | O_CREAT, 0600));
	fd[1] = MUST(memfd_create("guarded", 0));
	for (int i = 0; i < COUNT; i++) {
		MUST(ftruncate(fd[i / 2], PAGES * 4096));
		p[i] = MUST(mmap(NULL, PAGES * 4096, PROT_READ | PROT_WRITE, i % 2 ? MAP_SHARED : MAP_PRIVATE,
				 fd[i / 2], 0));
		if (i % 2)
			test_fill(p[i], PAGES * 4096, i / 2);
	}
	for (int i = 0; i < COUNT; i++) {
		if (i % 2 == 0)
			test_fill(p[i], 8 * 4096, 10 + i);
		if (madvise(p[i] + 2 * 4096, 3 * 4096, 102))
			test_skip("no guards in file mappings: %s", strerror(errno));
	}
	test_ready();
	test_wait();
	for (int i = 0; i < COUNT; i++) {
		for (int k = 0; k < PAGES; k++)
			CHECK(reads(p[i] + k * 4096) == (k < 2 || k >= 5), "mapping %d page %d", i, k);
		test_check_fill(p[i], 2 * 4096, i % 2 ? i / 2 : 10 + i, "the pages before the guard");
		MUST(madvise(p[i] + 2 * 4096, 3 * 4096, 103));
		CHECK(reads(p[i] + 3 * 4096), "a guard that was removed");
	}
	for (int i = 1; i < COUNT; i += 2)
		test_check_fill(p[i], PAGES * 4096, i / 2, "the file");
	test_pass();
}
