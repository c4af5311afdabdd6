/* SPDX-License-Identifier: Apache-2.0 */
/* Guards made by MADV_GUARD_INSTALL, which show in no map. */
#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>

#include "zdtm.h"

#define PAGES 16

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
	char *p;

	test_init(argc, argv);
	signal(SIGSEGV, handler);
	p = test_map(PAGES * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS);
	test_fill(p, PAGES * 4096, 1);
	if (madvise(p + 4096, 2 * 4096, 102))
		test_skip("no MADV_GUARD_INSTALL: %s", strerror(errno));
	test_ready();
	test_wait();
	for (int i = 0; i < PAGES; i++)
		CHECK(reads(p + i * 4096) == (i != 1 && i != 2), "page %d", i);
	test_check_fill(p, 4096, 1, "the page before the guard");
	MUST(madvise(p + 4096, 2 * 4096, 103));
	CHECK_EQ(p[4096], 0);
	test_pass();
}
