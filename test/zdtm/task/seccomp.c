/* SPDX-License-Identifier: Apache-2.0 */
/* Seccomp filters: a chain of three that all threads share, a child that has inherited it and added one, a
 * process of a user without privilege; and TSYNC still works. */
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "zdtm.h"

#define LOG_TOO SECCOMP_FILTER_FLAG_LOG

static int forbid(int nr, int code, unsigned flags)
{
	struct sock_filter filter[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, nr, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | code),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = {4, filter};

	return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &program);
}

static bool forbidden(int nr, int code)
{
	errno = 0;
	return syscall(nr, 0, 0, 0) == -1 && errno == code;
}

static int count_filters(void)
{
	char text[4096];

	test_read_file("/proc/thread-self/status", text, sizeof(text));
	return atoi(strstr(text, "Seccomp_filters:") + 16);
}

static volatile int started, done;

static void *thread(void *arg)
{
	started = 1;
	test_wait();
	CHECK(forbidden(SYS_getppid, 66) && forbidden(SYS_getpgid, 67) && forbidden(SYS_times, 68),
	      "the other thread is without a filter");
	while (!done)
		test_sleep_ms(1);
	CHECK(forbidden(SYS_getsid, 71), "TSYNC has not reached the other thread");
	return arg;
}

static void child(void)
{
	CHECK(forbid(SYS_sysinfo, 69, 0) == 0, "a filter of the child's own");
	test_wait();
	CHECK(forbidden(SYS_getppid, 66) && forbidden(SYS_sysinfo, 69), "the child is without a filter");
	CHECK_EQ(count_filters(), 4);
	exit(0);
}

static void user(void)
{
	MUST(setresgid(18943, 18943, 18943));
	MUST(setresuid(18943, 18943, 18943));
	MUST(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
	CHECK(forbid(SYS_getppid, 70, 0) == 0, "a filter of a user");
	test_wait();
	CHECK(forbidden(SYS_getppid, 70), "the user's process is without a filter");
	CHECK_EQ(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0), 1);
	exit(0);
}

int main(int argc, char **argv)
{
	pthread_t t;

	test_init(argc, argv);
	pid_t b = test_fork();

	if (b == 0)
		user();
	/* By privilege, not by no_new_privs. */
	if (forbid(SYS_getppid, 66, 0) < 0)
		test_skip("no seccomp filters: %s", strerror(errno));
	MUST0(pthread_create(&t, NULL, thread, NULL));
	while (!started)
		test_sleep_ms(1);
	CHECK(forbid(SYS_getpgid, 67, SECCOMP_FILTER_FLAG_TSYNC) == 0, "TSYNC");
	CHECK(forbid(SYS_times, 68, SECCOMP_FILTER_FLAG_TSYNC | LOG_TOO) == 0, "TSYNC with LOG");
	pid_t a = test_fork();

	if (a == 0)
		child();
	test_sleep_ms(50);
	test_ready();
	test_wait();
	CHECK(forbidden(SYS_getppid, 66) && forbidden(SYS_getpgid, 67) && forbidden(SYS_times, 68),
	      "without a filter");
	CHECK(!forbidden(SYS_sysinfo, 69), "the child's filter is here, too");
	CHECK_EQ(count_filters(), 3);
	CHECK_EQ(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0), 0);
	CHECK_EQ(forbid(SYS_getsid, 71, SECCOMP_FILTER_FLAG_TSYNC), 0);
	done = 1;
	MUST0(pthread_join(t, NULL));
	test_reap(a, 0);
	test_reap(b, 0);
	test_pass();
}
