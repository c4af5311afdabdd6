/* SPDX-License-Identifier: Apache-2.0 */
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "zdtm.h"

static volatile pid_t tid;

/* Only this thread has the filter, which allows everything but one call. */
static void *thread(void *arg)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getppid, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | 66),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = {4, code};

	MUST(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
	MUST(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program));
	tid = gettid();
	test_wait();
	CHECK(syscall(SYS_getppid) == -1 && errno == 66, "the filter is gone");
	return arg;
}

int main(int argc, char **argv)
{
	pthread_t t;

	test_init(argc, argv);
	MUST0(pthread_create(&t, NULL, thread, NULL));
	while (!tid)
		test_sleep_ms(1);
	test_ready();
	test_wait();
	CHECK(syscall(SYS_getppid) != -1, "the filter is in another thread too");
	MUST0(pthread_join(t, NULL));
	test_pass();
}
