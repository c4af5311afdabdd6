/* SPDX-License-Identifier: Apache-2.0 */
/* Process attributes set by prctl and /proc: dumpable, subreaper, pdeathsig, timer slack, THP, oom score,
 * coredump filter. */
#include <signal.h>
#include <sys/personality.h>
#include <sys/prctl.h>

#include "zdtm.h"

static void read_all(char *oom, char *filter)
{
	test_read_file("/proc/self/oom_score_adj", oom, 64);
	test_read_file("/proc/self/coredump_filter", filter, 64);
}

int main(int argc, char **argv)
{
	char oom[2][64], filter[2][64];
	int sig, reaper, per;

	test_init(argc, argv);
	MUST(prctl(PR_SET_DUMPABLE, 0));
	MUST(prctl(PR_SET_CHILD_SUBREAPER, 1));
	MUST(prctl(PR_SET_PDEATHSIG, SIGUSR2));
	MUST(prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0));
	MUST(prctl(PR_SET_TIMERSLACK, 123456));
	MUST(personality(ADDR_NO_RANDOMIZE | STICKY_TIMEOUTS));
	per = MUST(personality(0xffffffff));
	test_write_file("/proc/self/oom_score_adj", "321");
	test_write_file("/proc/self/coredump_filter", "0x3f");
	read_all(oom[0], filter[0]);
	test_ready();
	test_wait();
	read_all(oom[1], filter[1]);
	CHECK_EQ(prctl(PR_GET_DUMPABLE), 0);
	MUST(prctl(PR_GET_CHILD_SUBREAPER, &reaper));
	CHECK_EQ(reaper, 1);
	MUST(prctl(PR_GET_PDEATHSIG, &sig));
	CHECK_EQ(sig, SIGUSR2);
	CHECK_EQ(prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0), 1);
	CHECK_EQ(prctl(PR_GET_TIMERSLACK), 123456);
	CHECK_EQ(personality(0xffffffff), per);
	CHECK(!strcmp(oom[0], oom[1]), "oom_score_adj is %s", oom[1]);
	CHECK(!strcmp(filter[0], filter[1]), "coredump_filter is %s", filter[1]);
	test_pass();
}
