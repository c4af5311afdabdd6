/* SPDX-License-Identifier: Apache-2.0 */
/* A filter that kills for every call but the few the program makes: none of ours may ever meet it. */
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "zdtm.h"

static const int allowed[] = {
	SYS_clock_nanosleep, SYS_nanosleep, SYS_access, SYS_newfstatat, SYS_stat,      SYS_restart_syscall,
	SYS_rt_sigreturn,    SYS_openat,    SYS_write,  SYS_link,       SYS_unlink,    SYS_close,
	SYS_exit_group,      SYS_exit,      SYS_futex,  SYS_read,       SYS_faccessat, SYS_linkat,
	SYS_unlinkat,        SYS_gettid};
#define N (sizeof(allowed) / sizeof(allowed[0]))

static void install(void)
{
	struct sock_filter code[N + 3] = {BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 0)};
	struct sock_fprog program = {N + 3, code};

	for (size_t i = 0; i < N; i++)
		code[i + 1] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, allowed[i], N - i, 0);
	code[N + 1] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS);
	code[N + 2] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
	MUST(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
	if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &program) < 0)
		test_skip("no seccomp filters: %s", strerror(errno));
}

static volatile int started;

static void *thread(void *arg)
{
	started = 1;
	for (;;)
		test_sleep_ms(3);
	return arg;
}

int main(int argc, char **argv)
{
	pthread_t t;

	test_init(argc, argv);
	MUST0(pthread_create(&t, NULL, thread, NULL)); /* ends with the process */
	while (!started)
		test_sleep_ms(1);
	test_ready();
	install();
	test_wait();
	test_sleep_ms(20);
	test_pass();
}
