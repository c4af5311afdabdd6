/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A thread that is nearly always inside a restartable sequence.  Whoever is stopped in one must find it
 * aborted: a sequence that commits although much time passed inside of it was wrongly resumed.
 */
#include <linux/rseq.h>
#include <sys/rseq.h>
#include <time.h>

#include "zdtm.h"

static uint64_t commits, aborts, longest;

/* One sequence of @loops turns; false when it was aborted. */
static bool sequence(struct rseq *area, uint64_t loops)
{
	struct rseq_cs *volatile *slot = (struct rseq_cs *volatile *)&area->rseq_cs;
	uint64_t begin = 0, end = 0;

	__asm__ goto volatile(".pushsection __rseq_cs, \"aw\"\n\t"
			      ".balign 32\n"
			      "3:\n\t"
			      ".long 0, 0\n\t"
			      ".quad 1f, (2f - 1f), 4f\n\t"
			      ".popsection\n\t"
			      "leaq 3b(%%rip), %%rax\n\t"
			      "movq %%rax, (%0)\n"
			      "1:\n\t"
			      "rdtsc\n\tshlq $32, %%rdx\n\torq %%rdx, %%rax\n\tmovq %%rax, %%r8\n\t"
			      "movq %1, %%rcx\n"
			      "5:\tpause\n\tdecq %%rcx\n\tjnz 5b\n\t"
			      "rdtsc\n\tshlq $32, %%rdx\n\torq %%rdx, %%rax\n\tmovq %%r8, (%2)\n\t"
			      "movq %%rax, (%3)\n"
			      "2:\n\t"
			      ".pushsection .text.rseq_abort, \"ax\"\n\t"
			      ".byte 0x0f, 0xb9, 0x3d\n\t" /* ud1 with the signature behind it */
			      ".long 0x53053053\n"
			      "4:\tjmp %l[aborted]\n\t"
			      ".popsection"
			      :
			      : "r"(slot), "r"(loops), "r"(&begin), "r"(&end)
			      : "rax", "rcx", "rdx", "r8", "memory", "cc"
			      : aborted);
	*slot = NULL;
	if (end - begin > longest)
		longest = end - begin;
	return true;
aborted:
	return false;
}

static uint64_t ticks_per_ms(void)
{
	struct timespec from, to;
	uint64_t t = __builtin_ia32_rdtsc();

	clock_gettime(CLOCK_MONOTONIC, &from);
	test_sleep_ms(20);
	t = __builtin_ia32_rdtsc() - t;
	clock_gettime(CLOCK_MONOTONIC, &to);
	return t * 1000000 / ((to.tv_sec - from.tv_sec) * 1000000000ULL + to.tv_nsec - from.tv_nsec);
}

int main(int argc, char **argv)
{
	struct rseq *area = (struct rseq *)((char *)__builtin_thread_pointer() + __rseq_offset);
	uint64_t per_ms;

	test_init(argc, argv);
	if (!__rseq_size)
		test_skip("the C library does not register rseq");
	per_ms = ticks_per_ms();
	test_ready();
	while (commits % 64 || test_waiting()) {
		if (sequence(area, 2000))
			commits++;
		else
			aborts++;
	}
	errno = 0;
	CHECK(commits > 0, "no sequence ever ended");
	CHECK(longest < 60 * per_ms, "a sequence was resumed after %llu ms instead of being aborted",
	      (unsigned long long)(longest / per_ms));
	fprintf(stderr, "%llu commits, %llu aborts, longest %llu us\n", (unsigned long long)commits,
		(unsigned long long)aborts, (unsigned long long)(longest * 1000 / per_ms));
	test_pass();
}
