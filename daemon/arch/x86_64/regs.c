/* SPDX-License-Identifier: Apache-2.0 */
/*
 * General registers, and how a system call that was cut short goes on.
 *
 * A thread stopped inside a system call shows rip behind the two-byte instruction, orig_rax the number and
 * rax a code: -ERESTARTSYS and its like when the kernel would restart the call by itself on the way back to
 * user mode. The kernel does so on PTRACE_DETACH and when the tracer dies, whatever the kind of stop, as long
 * as rax and orig_rax are as they were; it does not on PTRACE_CONT from a system call stop.  In another
 * process, or on a way back that avoids the kernel, it has to be done by hand: rax = orig_rax, rip -= 2,
 * orig_rax = -1.
 */
#include "arch/arch.h"

#include <elf.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#define ERESTARTSYS           512
#define ERESTARTNOINTR        513
#define ERESTARTNOHAND        514
#define ERESTART_RESTARTBLOCK 516

int arch_regs_get(pid_t tid, struct arch_regs *ret)
{
	struct iovec iov = {&ret->r, sizeof(ret->r)};

	if (ptrace(PTRACE_GETREGSET, tid, (void *)NT_PRSTATUS, &iov) < 0)
		return -errno;
	return iov.iov_len == sizeof(ret->r) ? 0 : -ENOTSUP; /* a 32-bit task has fewer */
}

int arch_regs_set(pid_t tid, const struct arch_regs *regs)
{
	struct iovec iov = {(void *)&regs->r, sizeof(regs->r)};

	return ptrace(PTRACE_SETREGSET, tid, (void *)NT_PRSTATUS, &iov) < 0 ? -errno : 0;
}

void arch_regs_syscall(struct arch_regs *regs, uint64_t insn, long nr, const uint64_t args[6])
{
	regs->r.rip = insn;
	regs->r.rax = nr;
	regs->r.orig_rax = -1;
	regs->r.rdi = args[0];
	regs->r.rsi = args[1];
	regs->r.rdx = args[2];
	regs->r.r10 = args[3];
	regs->r.r8 = args[4];
	regs->r.r9 = args[5];
	regs->r.eflags &= ~0x100ull; /* no single step */
}

int64_t arch_regs_result(const struct arch_regs *regs)
{
	return (int64_t)regs->r.rax;
}

void arch_regs_call(struct arch_regs *regs, uint64_t ip, uint64_t sp, uint64_t arg)
{
	regs->r.rip = ip;
	regs->r.rsp = sp & ~15ull;
	regs->r.rdi = arg;
	regs->r.rbp = 0;
	regs->r.rax = 0;
	regs->r.orig_rax = -1;
	regs->r.eflags &= ~0x500ull; /* no single step, strings go upwards */
}

uint64_t arch_regs_ip(const struct arch_regs *regs)
{
	return regs->r.rip;
}

void arch_regs_set_ip(struct arch_regs *regs, uint64_t ip)
{
	regs->r.rip = ip;
	regs->r.orig_rax = -1;
}

uint64_t arch_regs_sp(const struct arch_regs *regs)
{
	return regs->r.rsp;
}

uint64_t arch_regs_tp(const struct arch_regs *regs)
{
	return regs->r.fs_base;
}

bool arch_regs_in_syscall(const struct arch_regs *regs, long *ret_nr, int64_t *ret_code)
{
	if ((int64_t)regs->r.orig_rax < 0)
		return false;
	if (ret_nr)
		*ret_nr = (long)regs->r.orig_rax;
	if (ret_code)
		*ret_code = (int64_t)regs->r.rax;
	return true;
}

static void issue_again(struct arch_regs *regs, uint64_t nr)
{
	regs->r.rax = nr;
	regs->r.rip -= 2;
	regs->r.orig_rax = -1;
}

/* How a sleep that was cut short goes on elsewhere.  The kernel has stored the rest at rmtp already: where
 * that is the request itself, issuing the call again sleeps the rest; where it is another place, the program
 * looks there after EINTR; without it the whole time is slept again: too long is allowed, too short is not.
 */
static bool sleep_tells_rest(const struct user_regs_struct *r)
{
	uint64_t request = r->orig_rax == SYS_nanosleep ? r->rdi : r->rdx;
	uint64_t rest = r->orig_rax == SYS_nanosleep ? r->rsi : r->r10;

	return (r->orig_rax == SYS_nanosleep || r->orig_rax == SYS_clock_nanosleep) && rest &&
	       rest != request;
}

void arch_regs_restart(struct arch_regs *regs)
{
	long nr;
	int64_t code;

	if (!arch_regs_in_syscall(regs, &nr, &code))
		return;
	if (code == -ERESTARTSYS || code == -ERESTARTNOINTR || code == -ERESTARTNOHAND) {
		issue_again(regs, nr);
	} else if (code == -ERESTART_RESTARTBLOCK) {
		/* Restarted once before: the number is restart_syscall's, and what it continued is not known.
		 */
		if (nr == SYS_restart_syscall || sleep_tells_rest(&regs->r))
			regs->r.rax = -EINTR;
		else
			issue_again(regs, nr);
	}
	regs->r.orig_rax = -1;
}

void arch_regs_resume(struct arch_regs *regs)
{
	long nr;
	int64_t code;

	if (arch_regs_in_syscall(regs, &nr, &code)) {
		if (code == -ERESTARTSYS || code == -ERESTARTNOINTR || code == -ERESTARTNOHAND)
			issue_again(regs, nr);
		else if (code == -ERESTART_RESTARTBLOCK)
			issue_again(regs, SYS_restart_syscall);
	}
	regs->r.orig_rax = -1;
}

bool arch_regs_native(const struct arch_regs *regs)
{
	return regs->r.cs == 0x33;
}

/* syscall; 1: pause; jmp 1b */
const uint8_t arch_spin_code[ARCH_SPIN_SIZE] = {0x0f, 0x05, 0xf3, 0x90, 0xeb, 0xfc, 0, 0};

/*
 * pb_cure() sets rsp to the frame, pops the registers in this order, pops the flags, and returns into the few
 * instructions behind them, which load rsp and jump: both from memory, so that every register keeps its
 * value.
 */
size_t arch_cure_frame(void *buf, uint64_t addr, const struct arch_regs *regs)
{
	static const uint8_t way_back[16] = {
		0x48, 0x8b, 0x25, 0x09, 0, 0, 0, /* mov 9(%rip), %rsp */
		0xff, 0x25, 0x0b, 0,    0, 0,    /* jmp *11(%rip) */
		0xcc, 0xcc, 0xcc,
	};
	const struct user_regs_struct *r = &regs->r;
	uint64_t words[] = {
		r->r15,        r->r14, r->r13, r->r12, r->rbp, r->rbx, r->r11, r->r10,
		r->r9,         r->r8,  r->rax, r->rcx, r->rdx, r->rsi, r->rdi, r->eflags & ~0x100ull,
		addr + 17 * 8,
	};
	uint8_t *p = buf;

	memcpy(p, words, sizeof(words));
	memcpy(p + sizeof(words), way_back, sizeof(way_back));
	memcpy(p + sizeof(words) + 16, &r->rsp, 8);
	memcpy(p + sizeof(words) + 24, &r->rip, 8);
	return sizeof(words) + 32;
}

ssize_t arch_find_syscall(const void *code, size_t size)
{
	const uint8_t *p = memmem(code, size, arch_spin_code, 2);

	return p ? p - (const uint8_t *)code : -1;
}

uint64_t arch_task_size(void)
{
	return 0x7ffffffff000ull;
}

unsigned arch_elf_machine(void)
{
	return EM_X86_64;
}

const char *arch_name(void)
{
	return "x86_64";
}
