/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * The architecture-dependent lines behind one interface; daemon/arch/<arch>/ implements it.
 * All functions act on a ptrace-stopped thread and return 0 or -errno (-ESRCH: it was killed).
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#if defined(__x86_64__)
#include "arch/x86_64/regs.h"
#else
#error "no such architecture yet: see daemon/arch/"
#endif

/* General registers, as PTRACE_GETREGSET NT_PRSTATUS gives them (x86-64: with fs_base, gs_base). */
int arch_regs_get(pid_t tid, struct arch_regs *ret);
int arch_regs_set(pid_t tid, const struct arch_regs *regs);

/* Extended state (x87, SSE, AVX, AVX-512, PKRU...) as NT_X86_XSTATE gives it: uncompacted. @ret is
 * malloc'ed. */
int arch_xstate_get(pid_t tid, void **ret, size_t *ret_size);
int arch_xstate_set(pid_t tid, const void *xstate, size_t size);
/* Enabled feature bits (xcr0) and size of this machine's xstate: to be compared before round one. */
void arch_xstate_features(uint64_t *ret_mask, size_t *ret_size);

/* Set up @regs so that the thread runs the system call instruction at @insn. Marks the thread as not
 * being in a system call (orig_rax = -1). */
void arch_regs_syscall(struct arch_regs *regs, uint64_t insn, long nr, const uint64_t args[6]);
int64_t arch_regs_result(const struct arch_regs *regs);
/* Set up @regs so that the thread calls code at @ip with one argument on the stack that ends at @sp. */
void arch_regs_call(struct arch_regs *regs, uint64_t ip, uint64_t sp, uint64_t arg);
uint64_t arch_regs_ip(const struct arch_regs *regs);
void arch_regs_set_ip(struct arch_regs *regs, uint64_t ip); /* and out of any system call */
uint64_t arch_regs_sp(const struct arch_regs *regs);
uint64_t arch_regs_tp(const struct arch_regs *regs); /* thread pointer */

/* Is the thread inside a system call (frozen with a restart code or a result)? *ret_nr, *ret_code. */
bool arch_regs_in_syscall(const struct arch_regs *regs, long *ret_nr, int64_t *ret_code);
/* Make the registers of a thread frozen in a restartable call such that it issues the call again when it runs
 * in another process (which calls: state/task/restart.c). */
void arch_regs_restart(struct arch_regs *regs);
/* The same for a thread that goes on in its own process without the kernel's help (user mode jumps back to
 * these registers): does by hand what signal return would not do for a restart code. */
void arch_regs_resume(struct arch_regs *regs);
/* The same with another number: for a call that is being continued by restart_syscall(2). */
void arch_regs_restart_as(struct arch_regs *regs, long nr);
/* End the call the thread is in with this result; it is then not in a system call any more. */
void arch_regs_end_syscall(struct arch_regs *regs, int64_t result);
/* Argument 0 to 5 of the call the thread is in. */
uint64_t arch_regs_arg(const struct arch_regs *regs, unsigned i);
void arch_regs_set_arg(struct arch_regs *regs, unsigned i, uint64_t value);
/* The number that the instruction just before a system call instruction loads, as compilers emit it; @code:
 * the ARCH_SYSCALL_LEAD bytes that end behind the system call instruction. -1: not recognized. */
long arch_syscall_loaded(const uint8_t *code);
/* Can this xstate, from another machine, be loaded here? 0, or -EOPNOTSUPP with the reason in @why. */
int arch_xstate_check(const void *xstate, size_t size, char *why, size_t why_size);

/* Is this a task of the word size and call convention handled here (x86-64: not 32-bit)? */
bool arch_regs_native(const struct arch_regs *regs);

/* A system call instruction followed by an endless loop, 8 bytes: where a thread stays if its tracer dies. */
#define ARCH_SPIN_SIZE 8
extern const uint8_t arch_spin_code[ARCH_SPIN_SIZE];
/* Write at @buf, which the target sees at @addr, what parasite/blob's pb_cure() needs to put @regs back from
 * user mode with no register lost. Returns the bytes used (at most ARCH_CURE_SIZE). */
#define ARCH_CURE_SIZE 256
size_t arch_cure_frame(void *buf, uint64_t addr, const struct arch_regs *regs);

/* Find a system call instruction in @code; returns its offset or -1. */
ssize_t arch_find_syscall(const void *code, size_t size);
/* Highest user address + 1 (x86-64 with 4-level tables: 0x7ffffffff000). */
uint64_t arch_task_size(void);
/* ELF e_machine and the name used in images and messages. */
unsigned arch_elf_machine(void);
const char *arch_name(void);
