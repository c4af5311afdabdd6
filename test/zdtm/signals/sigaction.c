/* SPDX-License-Identifier: Apache-2.0 */
/* Handlers, flags and masks of all signals, ignored ones included; one handler runs on an alternate stack. */
#include <signal.h>
#include <sys/syscall.h>

#include "zdtm.h"

struct kernel_action {
	void (*handler)(int);
	unsigned long flags;
	void (*restorer)(void);
	uint64_t mask;
};

static char stack[64 << 10];
static volatile int got;
static volatile uintptr_t where;

static void handler(int sig)
{
	char here;

	got = sig;
	where = (uintptr_t)&here;
}

static void info_handler(int sig, siginfo_t *info, void *context)
{
	(void)info;
	(void)context;
	handler(sig);
}

static void read_actions(struct kernel_action *a)
{
	memset(a, 0, 65 * sizeof(*a));
	for (int sig = 1; sig <= 64; sig++)
		MUST(syscall(SYS_rt_sigaction, sig, NULL, &a[sig], 8));
}

int main(int argc, char **argv)
{
	static struct kernel_action before[65], after[65];
	stack_t alt = {.ss_sp = stack, .ss_size = sizeof(stack)}, now;

	test_init(argc, argv);
	MUST(sigaltstack(&alt, NULL));
	for (int sig = 1; sig <= 64; sig++) {
		struct sigaction sa = {.sa_handler = handler};

		if (sig == SIGKILL || sig == SIGSTOP || (sig >= 32 && sig < SIGRTMIN))
			continue;
		if (sig % 7 == 0)
			sa.sa_handler = SIG_IGN;
		if (sig % 7 == 1) {
			sa.sa_flags = SA_SIGINFO | SA_RESTART | SA_NODEFER;
			sa.sa_sigaction = info_handler;
		}
		if (sig == SIGUSR1)
			sa.sa_flags |= SA_ONSTACK;
		if (sig == SIGCHLD)
			sa.sa_flags |= SA_NOCLDSTOP;
		if (sig == SIGUSR2)
			sa.sa_flags |= SA_RESETHAND;
		sigaddset(&sa.sa_mask, sig % 30 + 1);
		MUST(sigaction(sig, &sa, NULL));
	}
	read_actions(before);
	test_ready();
	test_wait();
	read_actions(after);
	for (int sig = 1; sig <= 64; sig++)
		CHECK(!memcmp(&before[sig], &after[sig], sizeof(before[0])),
		      "the action of signal %d changed", sig);
	MUST(sigaltstack(NULL, &now));
	CHECK(now.ss_sp == stack && now.ss_size == sizeof(stack) && !now.ss_flags,
	      "the alternate stack changed");
	raise(SIGUSR1);
	CHECK_EQ(got, SIGUSR1);
	CHECK(where - (uintptr_t)stack < sizeof(stack), "the handler ran at %lx", (long)where);
	raise(SIGHUP);
	CHECK_EQ(got, SIGHUP);
	CHECK(where - (uintptr_t)stack >= sizeof(stack), "the handler ran on the alternate stack");
	raise(SIGBUS); /* 7: ignored */
	CHECK_EQ(got, SIGHUP);
	test_pass();
}
