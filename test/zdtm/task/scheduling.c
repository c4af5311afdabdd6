/* SPDX-License-Identifier: Apache-2.0 */
/* Nice value, policy, real-time priority, affinity, io priority and timer slack of each thread. */
#include <pthread.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include "zdtm.h"

#define THREADS 6

static const struct setting {
	int policy, priority, nice;
} settings[THREADS] = {
	{SCHED_OTHER, 0, 5}, {SCHED_OTHER, 0, -7}, {SCHED_BATCH, 0, 3},
	{SCHED_IDLE, 0, 0},  {SCHED_FIFO, 7, 0},   {SCHED_RR | SCHED_RESET_ON_FORK, 12, 0},
};
static pthread_barrier_t up;

struct sched {
	int policy, priority, nice, io;
	unsigned long slack;
	cpu_set_t cpus;
};

static void read_sched(struct sched *s)
{
	struct sched_param param;

	memset(s, 0, sizeof(*s));
	s->policy = MUST(sched_getscheduler(0));
	MUST(sched_getparam(0, &param));
	s->priority = param.sched_priority;
	s->nice = getpriority(PRIO_PROCESS, 0);
	s->io = MUST(syscall(SYS_ioprio_get, 1, 0));
	s->slack = MUST(prctl(PR_GET_TIMERSLACK));
	MUST(sched_getaffinity(0, sizeof(s->cpus), &s->cpus));
}

static void *thread(void *arg)
{
	long n = (long)arg;
	struct sched_param param = {settings[n].priority};
	struct sched before, after;
	cpu_set_t one;
	int cpu;

	MUST(sched_getaffinity(0, sizeof(one), &one));
	for (cpu = CPU_SETSIZE - 1; !CPU_ISSET(cpu, &one); cpu--)
		;
	CPU_ZERO(&one);
	CPU_SET(cpu, &one);
	if (n % 2)
		MUST(sched_setaffinity(0, sizeof(one), &one));
	MUST(prctl(PR_SET_TIMERSLACK, 10000 * (n + 1)));
	MUST(syscall(SYS_ioprio_set, 1, 0, 2 << 13 | (int)n));
	MUST(setpriority(PRIO_PROCESS, gettid(), settings[n].nice));
	MUST(sched_setscheduler(0, settings[n].policy, &param));
	read_sched(&before);
	CHECK_EQ(before.policy, settings[n].policy);
	pthread_barrier_wait(&up);
	test_wait();
	read_sched(&after);
	CHECK_EQ(after.policy, before.policy);
	CHECK_EQ(after.priority, before.priority);
	CHECK_EQ(after.nice, before.nice);
	CHECK_EQ(after.io, before.io);
	if (!(settings[n].policy == SCHED_FIFO || (settings[n].policy & ~SCHED_RESET_ON_FORK) == SCHED_RR))
		CHECK_EQ(after.slack, before.slack);
	CHECK(CPU_EQUAL(&after.cpus, &before.cpus), "the affinity of thread %ld changed", n);
	return NULL;
}

int main(int argc, char **argv)
{
	pthread_t t[THREADS];

	test_init(argc, argv);
	MUST0(pthread_barrier_init(&up, NULL, THREADS + 1));
	for (long n = 0; n < THREADS; n++)
		MUST0(pthread_create(&t[n], NULL, thread, (void *)n));
	pthread_barrier_wait(&up);
	test_ready();
	test_wait();
	for (int n = 0; n < THREADS; n++)
		MUST0(pthread_join(t[n], NULL));
	test_pass();
}
