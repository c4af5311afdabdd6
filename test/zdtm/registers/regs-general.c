/* SPDX-License-Identifier: Apache-2.0 */
/* A thread spins with known values in all general registers and in the flags. */
#include <asm/prctl.h>
#include <pthread.h>
#include <sys/syscall.h>

#include "zdtm.h"

#define NREGS 15

static volatile int flag __attribute__((used)), spinning __attribute__((used));
static uint64_t in[NREGS] __attribute__((used)), out[NREGS] __attribute__((used));
static uint64_t flags_out __attribute__((used)), rsp_in __attribute__((used)), rsp_out __attribute__((used));

/* rax rbx rcx rdx rsi rdi r8-r15 and rbp; rsp is compared as it is. The flag is polled by address, without a
 * register. */
static void spin(void)
{
	__asm__ volatile(
		"pushq %%rbp\n\t"
		"movq %%rsp, rsp_in(%%rip)\n\t"
		"pushq $0xcd7\n\tpopfq\n\t" /* CF PF AF ZF SF DF OF; of these only DF outlives the loop */
		"movq in(%%rip), %%rax\n\tmovq in+8(%%rip), %%rbx\n\tmovq in+16(%%rip), %%rcx\n\t"
		"movq in+24(%%rip), %%rdx\n\tmovq in+32(%%rip), %%rsi\n\tmovq in+40(%%rip), %%rdi\n\t"
		"movq in+48(%%rip), %%r8\n\tmovq in+56(%%rip), %%r9\n\tmovq in+64(%%rip), %%r10\n\t"
		"movq in+72(%%rip), %%r11\n\tmovq in+80(%%rip), %%r12\n\tmovq in+88(%%rip), %%r13\n\t"
		"movq in+96(%%rip), %%r14\n\tmovq in+104(%%rip), %%r15\n\tmovq in+112(%%rip), %%rbp\n\t"
		"movl $1, spinning(%%rip)\n"
		"1:\tpause\n\tcmpl $0, flag(%%rip)\n\tje 1b\n\t"
		"pushfq\n\tpopq flags_out(%%rip)\n\tcld\n\t"
		"movq %%rax, out(%%rip)\n\tmovq %%rbx, out+8(%%rip)\n\tmovq %%rcx, out+16(%%rip)\n\t"
		"movq %%rdx, out+24(%%rip)\n\tmovq %%rsi, out+32(%%rip)\n\tmovq %%rdi, out+40(%%rip)\n\t"
		"movq %%r8, out+48(%%rip)\n\tmovq %%r9, out+56(%%rip)\n\tmovq %%r10, out+64(%%rip)\n\t"
		"movq %%r11, out+72(%%rip)\n\tmovq %%r12, out+80(%%rip)\n\tmovq %%r13, out+88(%%rip)\n\t"
		"movq %%r14, out+96(%%rip)\n\tmovq %%r15, out+104(%%rip)\n\tmovq %%rbp, out+112(%%rip)\n\t"
		"movq %%rsp, rsp_out(%%rip)\n\t"
		"popq %%rbp\n\t"
		:
		:
		: "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14",
		  "r15", "memory", "cc");
}

static void *thread(void *arg)
{
	unsigned long fs, gs;

	MUST(syscall(SYS_arch_prctl, ARCH_SET_GS, in));
	MUST(syscall(SYS_arch_prctl, ARCH_GET_FS, &fs));
	spin();
	MUST(syscall(SYS_arch_prctl, ARCH_GET_GS, &gs));
	CHECK_EQ(gs, (unsigned long)in);
	MUST(syscall(SYS_arch_prctl, ARCH_GET_FS, &gs));
	CHECK_EQ(gs, fs);
	return arg;
}

int main(int argc, char **argv)
{
	pthread_t t;

	test_init(argc, argv);
	for (int i = 0; i < NREGS; i++)
		in[i] = 0x1122334455667788ULL * (i + 1) ^ 0xf0f0f0f0deadbeefULL;
	MUST0(pthread_create(&t, NULL, thread, NULL));
	while (!spinning)
		test_sleep_ms(1);
	test_ready();
	test_wait();
	flag = 1;
	MUST0(pthread_join(t, NULL));
	for (int i = 0; i < NREGS; i++)
		CHECK(in[i] == out[i], "register %d is %llx, was %llx", i, (unsigned long long)out[i],
		      (unsigned long long)in[i]);
	CHECK_EQ(rsp_out, rsp_in);
	CHECK(flags_out & 0x400, "the direction flag is lost: %llx", (unsigned long long)flags_out);
	test_pass();
}
