/* SPDX-License-Identifier: Apache-2.0 */
/* Deadline scheduling, and the nice value of the session's autogroup. */
#include <linux/sched.h>
#include <linux/sched/types.h>
#include <sys/syscall.h>

#include "zdtm.h"

int main(int argc, char **argv)
{
	struct sched_attr set = {.size = sizeof(set),
				 .sched_policy = SCHED_DEADLINE,
				 .sched_runtime = 3000000,
				 .sched_deadline = 40000000,
				 .sched_period = 60000000},
			  now;
	char before[128] = "", after[128] = "";
	volatile int *ready;
	pid_t child;
	int nice = 0;

	test_init(argc, argv);
	ready = test_shared_flags(1);
	if (access("/proc/self/autogroup", W_OK) == 0) {
		test_write_file("/proc/self/autogroup", "7");
		test_read_file("/proc/self/autogroup", before, sizeof(before));
	}
	child = test_fork();
	if (child == 0) {
		if (syscall(SYS_sched_setattr, 0, &set, 0) < 0)
			test_skip("no deadline scheduling: %s", strerror(errno));
		*ready = 1;
		test_wait();
		MUST(syscall(SYS_sched_getattr, 0, &now, sizeof(now), 0));
		CHECK_EQ(now.sched_policy, SCHED_DEADLINE);
		CHECK_EQ(now.sched_runtime, set.sched_runtime);
		CHECK_EQ(now.sched_deadline, set.sched_deadline);
		CHECK_EQ(now.sched_period, set.sched_period);
		_exit(7);
	}
	while (!*ready)
		test_sleep_ms(1);
	test_ready();
	test_wait();
	if (*before) {
		test_read_file("/proc/self/autogroup", after, sizeof(after));
		CHECK(sscanf(after, "/autogroup-%*d nice %d", &nice) == 1 && nice == 7, "the autogroup is %s",
		      after);
	}
	test_reap(child, 7);
	test_pass();
}
