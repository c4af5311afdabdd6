/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Child processes to practise on. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/util.h"
#include "freeze/task.h"

#define assert_ok(call, e)                                                                  \
	do {                                                                                \
		int r_ = (call);                                                            \
		if (r_ < 0)                                                                 \
			print_error("%s: %d: %s (%s)\n", #call, r_, (e)->text, (e)->where); \
		assert_true(r_ >= 0);                                                       \
	} while (0)

/* Memory that the test and its children see; each test uses it as it likes. */
static volatile uint64_t *shared;

__attribute__((unused)) static int target_setup(void **state)
{
	(void)state;
	prctl(PR_SET_CHILD_SUBREAPER, 1); /* orphans of the tests come to us, see target_teardown */
	shared = mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	return shared == MAP_FAILED ? -1 : 0;
}

/* Nothing that a test started outlives it. */
__attribute__((unused)) static int target_teardown(void **state)
{
	char *text = NULL;

	(void)state;
	while (read_file("/proc/thread-self/children", &text) > 0) {
		char *next = text;

		for (pid_t pid; (pid = (pid_t)strtol(next, &next, 10)) > 0;) {
			kill(pid, SIGKILL);
			waitpid(pid, NULL, __WALL);
		}
		free(text);
	}
	free(text);
	return 0;
}

__attribute__((unused)) static pid_t target_fork(void (*run)(void))
{
	memset((void *)shared, 0, 65536);
	pid_t pid = fork();

	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		run();
		_exit(0);
	}
	return pid;
}

__attribute__((unused)) static void target_kill(pid_t pid)
{
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

__attribute__((unused)) static void msleep(unsigned ms)
{
	struct timespec ts = {ms / 1000, ms % 1000 * 1000000L};

	while (nanosleep(&ts, &ts) < 0)
		;
}

/* Wait until shared[i] reaches @value. */
__attribute__((unused)) static void await(unsigned i, uint64_t value)
{
	for (int n = 0; shared[i] < value; n++) {
		assert_true(n < 10000);
		msleep(1);
	}
}

__attribute__((unused)) static void run_counter(void)
{
	for (;;)
		shared[0]++;
}

__attribute__((unused)) static void run_pause(void)
{
	shared[0] = 1;
	for (;;)
		pause();
}

__attribute__((unused)) static void stop_task(struct task *t, pid_t pid, pid_t tid)
{
	struct error e = ERROR_INIT;

	assert_ok(task_seize(t, pid, tid, false, &e), &e);
	assert_ok(task_interrupt(t, &e), &e);
	assert_int_equal(task_wait_stopped(t, 5000, &e), 0);
}

/* A file of /proc, malloc'ed. */
__attribute__((unused)) static char *slurp(const char *fmt, ...)
{
	char path[128], *text = NULL;
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(path, sizeof(path), fmt, ap);
	va_end(ap);
	if (read_file(path, &text) < 0)
		return xstrdup("");
	return text;
}
