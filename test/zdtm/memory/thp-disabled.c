/* SPDX-License-Identifier: Apache-2.0 */
/* PR_SET_THP_DISABLE, wholly and (Linux 6.18) but for what was advised; a child of each. */
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "memory.h"

#define HUGE           (2UL << 20)
#define EXCEPT_ADVISED 2 /* PR_THP_DISABLE_EXCEPT_ADVISED */

static volatile int *flag;

/* Huge pages that a fresh mapping gets, in KiB. */
static long huge_here(bool advise)
{
	char *p = mem_alone(2 * HUGE);
	long n;

	if (advise)
		MUST(madvise(p, 2 * HUGE, MADV_HUGEPAGE));
	memset(p, 1, 2 * HUGE);
	n = mem_use(p, 2 * HUGE).anon_huge;
	MUST(munmap(p, 2 * HUGE));
	return n;
}

static void child(int i, int want, long huge)
{
	CHECK_EQ(prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0), want);
	CHECK_EQ(huge_here(true), huge);
	flag[i] = 1;
	while (test_waiting())
		test_sleep_ms(5);
	CHECK_EQ(prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0), want);
	CHECK_EQ(huge_here(true), huge);
	exit(0);
}

int main(int argc, char **argv)
{
	pid_t pid[2];
	bool has_except;
	long huge;

	test_init(argc, argv);
	flag = test_shared_flags(2);
	huge = huge_here(true);
	has_except = prctl(PR_SET_THP_DISABLE, 1, EXCEPT_ADVISED, 0, 0) == 0;
	if (has_except) {
		pid[1] = test_fork();
		if (!pid[1])
			child(1, 1 | EXCEPT_ADVISED, huge);
	}
	MUST(prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0));
	pid[0] = test_fork();
	if (!pid[0])
		child(0, 1, 0);
	MUST(prctl(PR_SET_THP_DISABLE, 0, 0, 0, 0));
	while (!flag[0] || (has_except && !flag[1]))
		test_sleep_ms(1);
	test_ready();
	test_wait();
	CHECK_EQ(prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0), 0);
	CHECK_EQ(huge_here(true), huge);
	test_reap(pid[0], 0);
	if (has_except)
		test_reap(pid[1], 0);
	test_pass();
}
