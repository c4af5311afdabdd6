/* SPDX-License-Identifier: Apache-2.0 */
/* Guard pages and memory that cannot be read or written just now, but has content. */
#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>

#include "zdtm.h"

#define SIZE (16 * 4096)

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

static bool writes(volatile char *p)
{
	if (sigsetjmp(back, 1))
		return false;
	*p = *p;
	return true;
}

int main(int argc, char **argv)
{
	char *hidden, *empty, *mixed;

	test_init(argc, argv);
	signal(SIGSEGV, handler);
	hidden = test_map(SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS);
	test_fill(hidden, SIZE, 1);
	MUST(mprotect(hidden, SIZE, PROT_NONE));
	empty = test_map(1UL << 40, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE);
	mixed = test_map(SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS);
	test_fill(mixed, SIZE, 2);
	for (int i = 0; i < 16; i += 2)
		MUST(mprotect(mixed + i * 4096, 4096, i % 4 ? PROT_NONE : PROT_READ));
	test_ready();
	test_wait();
	CHECK(!reads(hidden) && !reads(empty) && !reads(empty + (1UL << 39)), "a guarded page can be read");
	for (int i = 0; i < 16; i++) {
		CHECK(reads(mixed + i * 4096) == (i % 4 != 2), "page %d", i);
		CHECK(writes(mixed + i * 4096) == (i % 2 == 1), "page %d", i);
	}
	MUST(mprotect(hidden, SIZE, PROT_READ));
	MUST(mprotect(mixed, SIZE, PROT_READ));
	test_check_fill(hidden, SIZE, 1, "hidden");
	test_check_fill(mixed, SIZE, 2, "mixed");
	MUST(mprotect(empty, 4096, PROT_READ | PROT_WRITE));
	CHECK_EQ(empty[0], 0);
	test_pass();
}
