/* SPDX-License-Identifier: Apache-2.0 */
/* 32 vector registers of 64 bytes and the masks k0 to k7 of a spinning thread. */
#include <pthread.h>

#include "zdtm.h"

#define WIDTH 64
#define COUNT 32

static volatile int flag, spinning;

__attribute__((target("avx512bw"))) static void *thread(void *arg)
{
	static uint8_t in[COUNT][WIDTH] __attribute__((aligned(64))),
		out[COUNT][WIDTH] __attribute__((aligned(64)));
	static uint64_t kin[8], kout[8];

	test_fill(kin, sizeof(kin), 54321);
	test_fill(in, sizeof(in), 12345);
	__asm__ volatile("vmovdqa64 0(%[in]), %%zmm0\n\t"
			 "vmovdqa64 64(%[in]), %%zmm1\n\t"
			 "vmovdqa64 128(%[in]), %%zmm2\n\t"
			 "vmovdqa64 192(%[in]), %%zmm3\n\t"
			 "vmovdqa64 256(%[in]), %%zmm4\n\t"
			 "vmovdqa64 320(%[in]), %%zmm5\n\t"
			 "vmovdqa64 384(%[in]), %%zmm6\n\t"
			 "vmovdqa64 448(%[in]), %%zmm7\n\t"
			 "vmovdqa64 512(%[in]), %%zmm8\n\t"
			 "vmovdqa64 576(%[in]), %%zmm9\n\t"
			 "vmovdqa64 640(%[in]), %%zmm10\n\t"
			 "vmovdqa64 704(%[in]), %%zmm11\n\t"
			 "vmovdqa64 768(%[in]), %%zmm12\n\t"
			 "vmovdqa64 832(%[in]), %%zmm13\n\t"
			 "vmovdqa64 896(%[in]), %%zmm14\n\t"
			 "vmovdqa64 960(%[in]), %%zmm15\n\t"
			 "vmovdqa64 1024(%[in]), %%zmm16\n\t"
			 "vmovdqa64 1088(%[in]), %%zmm17\n\t"
			 "vmovdqa64 1152(%[in]), %%zmm18\n\t"
			 "vmovdqa64 1216(%[in]), %%zmm19\n\t"
			 "vmovdqa64 1280(%[in]), %%zmm20\n\t"
			 "vmovdqa64 1344(%[in]), %%zmm21\n\t"
			 "vmovdqa64 1408(%[in]), %%zmm22\n\t"
			 "vmovdqa64 1472(%[in]), %%zmm23\n\t"
			 "vmovdqa64 1536(%[in]), %%zmm24\n\t"
			 "vmovdqa64 1600(%[in]), %%zmm25\n\t"
			 "vmovdqa64 1664(%[in]), %%zmm26\n\t"
			 "vmovdqa64 1728(%[in]), %%zmm27\n\t"
			 "vmovdqa64 1792(%[in]), %%zmm28\n\t"
			 "vmovdqa64 1856(%[in]), %%zmm29\n\t"
			 "vmovdqa64 1920(%[in]), %%zmm30\n\t"
			 "vmovdqa64 1984(%[in]), %%zmm31\n\t"
			 "kmovq 0(%[kin]), %%k0\n\t"
			 "kmovq 8(%[kin]), %%k1\n\t"
			 "kmovq 16(%[kin]), %%k2\n\t"
			 "kmovq 24(%[kin]), %%k3\n\t"
			 "kmovq 32(%[kin]), %%k4\n\t"
			 "kmovq 40(%[kin]), %%k5\n\t"
			 "kmovq 48(%[kin]), %%k6\n\t"
			 "kmovq 56(%[kin]), %%k7\n\t"
			 "movl $1, %[spinning]\n"
			 "1:\tpause\n\tcmpl $0, %[flag]\n\tje 1b\n\t"
			 "vmovdqa64 %%zmm0, 0(%[out])\n\t"
			 "vmovdqa64 %%zmm1, 64(%[out])\n\t"
			 "vmovdqa64 %%zmm2, 128(%[out])\n\t"
			 "vmovdqa64 %%zmm3, 192(%[out])\n\t"
			 "vmovdqa64 %%zmm4, 256(%[out])\n\t"
			 "vmovdqa64 %%zmm5, 320(%[out])\n\t"
			 "vmovdqa64 %%zmm6, 384(%[out])\n\t"
			 "vmovdqa64 %%zmm7, 448(%[out])\n\t"
			 "vmovdqa64 %%zmm8, 512(%[out])\n\t"
			 "vmovdqa64 %%zmm9, 576(%[out])\n\t"
			 "vmovdqa64 %%zmm10, 640(%[out])\n\t"
			 "vmovdqa64 %%zmm11, 704(%[out])\n\t"
			 "vmovdqa64 %%zmm12, 768(%[out])\n\t"
			 "vmovdqa64 %%zmm13, 832(%[out])\n\t"
			 "vmovdqa64 %%zmm14, 896(%[out])\n\t"
			 "vmovdqa64 %%zmm15, 960(%[out])\n\t"
			 "vmovdqa64 %%zmm16, 1024(%[out])\n\t"
			 "vmovdqa64 %%zmm17, 1088(%[out])\n\t"
			 "vmovdqa64 %%zmm18, 1152(%[out])\n\t"
			 "vmovdqa64 %%zmm19, 1216(%[out])\n\t"
			 "vmovdqa64 %%zmm20, 1280(%[out])\n\t"
			 "vmovdqa64 %%zmm21, 1344(%[out])\n\t"
			 "vmovdqa64 %%zmm22, 1408(%[out])\n\t"
			 "vmovdqa64 %%zmm23, 1472(%[out])\n\t"
			 "vmovdqa64 %%zmm24, 1536(%[out])\n\t"
			 "vmovdqa64 %%zmm25, 1600(%[out])\n\t"
			 "vmovdqa64 %%zmm26, 1664(%[out])\n\t"
			 "vmovdqa64 %%zmm27, 1728(%[out])\n\t"
			 "vmovdqa64 %%zmm28, 1792(%[out])\n\t"
			 "vmovdqa64 %%zmm29, 1856(%[out])\n\t"
			 "vmovdqa64 %%zmm30, 1920(%[out])\n\t"
			 "vmovdqa64 %%zmm31, 1984(%[out])\n\t"
			 "kmovq %%k0, 0(%[kout])\n\t"
			 "kmovq %%k1, 8(%[kout])\n\t"
			 "kmovq %%k2, 16(%[kout])\n\t"
			 "kmovq %%k3, 24(%[kout])\n\t"
			 "kmovq %%k4, 32(%[kout])\n\t"
			 "kmovq %%k5, 40(%[kout])\n\t"
			 "kmovq %%k6, 48(%[kout])\n\t"
			 "kmovq %%k7, 56(%[kout])\n\t"
			 : [spinning] "=m"(spinning)
			 : [in] "r"(in), [out] "r"(out), [flag] "m"(flag), [kin] "r"(kin), [kout] "r"(kout)
			 : "memory", "cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7",
			   "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15", "xmm16",
			   "xmm17", "xmm18", "xmm19", "xmm20", "xmm21", "xmm22", "xmm23", "xmm24", "xmm25",
			   "xmm26", "xmm27", "xmm28", "xmm29", "xmm30", "xmm31", "k1", "k2", "k3", "k4", "k5",
			   "k6", "k7");
	for (int i = 0; i < COUNT; i++)
		CHECK(!memcmp(in[i], out[i], WIDTH), "zmm%d has changed", i);
	for (int i = 0; i < 8; i++)
		CHECK(kin[i] == kout[i], "k%d has changed", i);
	return arg;
}

int main(int argc, char **argv)
{
	pthread_t t;

	test_init(argc, argv);
	if (!__builtin_cpu_supports("avx512bw"))
		test_skip("no AVX-512");
	MUST0(pthread_create(&t, NULL, thread, NULL));
	while (!spinning)
		test_sleep_ms(1);
	test_ready();
	test_wait();
	flag = 1;
	MUST0(pthread_join(t, NULL));
	test_pass();
}
