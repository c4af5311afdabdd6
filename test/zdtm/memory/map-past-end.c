/* SPDX-License-Identifier: Apache-2.0 */
/* Maps that reach beyond the end of their file: SIGBUS there, as before. */
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>

#include "zdtm.h"

static sigjmp_buf back;

static void handler(int sig)
{
	(void)sig;
	siglongjmp(back, 1);
}

static bool faults(volatile char *p)
{
	if (sigsetjmp(back, 1))
		return true;
	(void)*p;
	return false;
}

int main(int argc, char **argv)
{
	char *p, *q;
	int fd;

	test_init(argc, argv);
	signal(SIGBUS, handler);
	fd = MUST(open(test_path("short"), O_RDWR | O_CREAT, 0644));
	MUST(ftruncate(fd, 3 * 4096));
	p = MUST(mmap(NULL, 8 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0));
	q = MUST(mmap(NULL, 8 * 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
	test_fill(p, 4096, 1);
	test_fill(q + 4096, 4096, 2);
	CHECK(faults(p + 3 * 4096) && faults(q + 3 * 4096), "no fault at the start");
	test_ready();
	test_wait();
	test_check_fill(p, 4096, 1, "private");
	test_check_fill(q + 4096, 4096, 2, "shared");
	CHECK(faults(p + 3 * 4096) && faults(q + 3 * 4096), "no fault behind the end");
	MUST(ftruncate(fd, 8 * 4096));
	CHECK(!faults(p + 3 * 4096) && !faults(q + 7 * 4096), "a fault although the file has grown");
	test_pass();
}
