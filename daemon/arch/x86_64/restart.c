/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A thread frozen inside a system call: rip is behind the 2-byte `syscall`, orig_rax has the number, rax a
 * result or a restart code, the arguments are still in their registers. To issue the call again, go back two
 * bytes with the number in rax; in either case orig_rax becomes -1, else the kernel would look at rax once
 * more and either do the restart twice or hand the raw code to the program.
 */
#include "arch/arch.h"

#include <string.h>

#define SYSCALL_LENGTH 2

void arch_regs_restart_as(struct arch_regs *regs, long nr)
{
	regs->r.rax = nr;
	regs->r.rip -= SYSCALL_LENGTH;
	regs->r.orig_rax = -1;
}

void arch_regs_end_syscall(struct arch_regs *regs, int64_t result)
{
	regs->r.rax = result;
	regs->r.orig_rax = -1;
}

static unsigned long long *argument(struct arch_regs *regs, unsigned i)
{
	unsigned long long *const args[6] = {&regs->r.rdi, &regs->r.rsi, &regs->r.rdx,
					     &regs->r.r10, &regs->r.r8,  &regs->r.r9};

	return args[i];
}

uint64_t arch_regs_arg(const struct arch_regs *regs, unsigned i)
{
	return i < 6 ? *argument((struct arch_regs *)regs, i) : 0;
}

void arch_regs_set_arg(struct arch_regs *regs, unsigned i, uint64_t value)
{
	if (i < 6)
		*argument(regs, i) = value;
}

long arch_syscall_loaded(const uint8_t *code)
{
	int32_t nr;

	if (code[0] != 0xb8 || code[5] != 0x0f || code[6] != 0x05)
		return -1;
	memcpy(&nr, code + 1, sizeof(nr));
	return nr >= 0 ? nr : -1;
}
