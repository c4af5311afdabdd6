/* SPDX-License-Identifier: Apache-2.0 */
/* Restartable sequences: the area stays registered in every thread, and the kernel keeps it up to date. */
#include <linux/rseq.h>
#include <pthread.h>
#include <sched.h>
#include <sys/rseq.h>
#include <sys/syscall.h>

#include "zdtm.h"

static void check_area(void)
{
	struct rseq *area = (struct rseq *)((char *)__builtin_thread_pointer() + __rseq_offset);
	cpu_set_t old, one;
	unsigned cpu;

	MUST(sched_getaffinity(0, sizeof(old), &old));
	for (int i = 0; i < CPU_SETSIZE; i++) {
		if (!CPU_ISSET(i, &old))
			continue;
		CPU_ZERO(&one);
		CPU_SET(i, &one);
		MUST(sched_setaffinity(0, sizeof(one), &one));
		MUST(syscall(SYS_getcpu, &cpu, NULL, NULL));
		CHECK_EQ(cpu, i);
		CHECK_EQ(*(volatile unsigned *)&area->cpu_id, i);
		CHECK_EQ(*(volatile unsigned *)&area->cpu_id_start, i);
	}
	MUST(sched_setaffinity(0, sizeof(old), &old));
	CHECK(syscall(SYS_rseq, area, __rseq_size < 32 ? 32 : __rseq_size, 0, RSEQ_SIG) == -1 &&
		      errno == EBUSY,
	      "rseq is not registered");
}

static void *thread(void *arg)
{
	check_area();
	test_wait();
	check_area();
	return arg;
}

int main(int argc, char **argv)
{
	pthread_t t[3];

	test_init(argc, argv);
	if (!__rseq_size)
		test_skip("the C library does not register rseq");
	for (int i = 0; i < 3; i++)
		MUST0(pthread_create(&t[i], NULL, thread, NULL));
	check_area();
	test_sleep_ms(20);
	test_ready();
	test_wait();
	check_area();
	for (int i = 0; i < 3; i++)
		MUST0(pthread_join(t[i], NULL));
	test_pass();
}
