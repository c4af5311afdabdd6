/* SPDX-License-Identifier: Apache-2.0 */
/* 16 vector registers of 32 bytes of a spinning thread. */
#include <pthread.h>

#include "zdtm.h"

#define WIDTH 32
#define COUNT 16

static volatile int flag, spinning;

__attribute__((target("avx"))) static void *thread(void *arg)
{
	static uint8_t in[COUNT][WIDTH] __attribute__((aligned(64))),
		out[COUNT][WIDTH] __attribute__((aligned(64)));

	test_fill(in, sizeof(in), 12345);
	__asm__ volatile("vmovdqa 0(%[in]), %%ymm0\n\t"
			 "vmovdqa 32(%[in]), %%ymm1\n\t"
			 "vmovdqa 64(%[in]), %%ymm2\n\t"
			 "vmovdqa 96(%[in]), %%ymm3\n\t"
			 "vmovdqa 128(%[in]), %%ymm4\n\t"
			 "vmovdqa 160(%[in]), %%ymm5\n\t"
			 "vmovdqa 192(%[in]), %%ymm6\n\t"
			 "vmovdqa 224(%[in]), %%ymm7\n\t"
			 "vmovdqa 256(%[in]), %%ymm8\n\t"
			 "vmovdqa 288(%[in]), %%ymm9\n\t"
			 "vmovdqa 320(%[in]), %%ymm10\n\t"
			 "vmovdqa 352(%[in]), %%ymm11\n\t"
			 "vmovdqa 384(%[in]), %%ymm12\n\t"
			 "vmovdqa 416(%[in]), %%ymm13\n\t"
			 "vmovdqa 448(%[in]), %%ymm14\n\t"
			 "vmovdqa 480(%[in]), %%ymm15\n\t"
			 "movl $1, %[spinning]\n"
			 "1:\tpause\n\tcmpl $0, %[flag]\n\tje 1b\n\t"
			 "vmovdqa %%ymm0, 0(%[out])\n\t"
			 "vmovdqa %%ymm1, 32(%[out])\n\t"
			 "vmovdqa %%ymm2, 64(%[out])\n\t"
			 "vmovdqa %%ymm3, 96(%[out])\n\t"
			 "vmovdqa %%ymm4, 128(%[out])\n\t"
			 "vmovdqa %%ymm5, 160(%[out])\n\t"
			 "vmovdqa %%ymm6, 192(%[out])\n\t"
			 "vmovdqa %%ymm7, 224(%[out])\n\t"
			 "vmovdqa %%ymm8, 256(%[out])\n\t"
			 "vmovdqa %%ymm9, 288(%[out])\n\t"
			 "vmovdqa %%ymm10, 320(%[out])\n\t"
			 "vmovdqa %%ymm11, 352(%[out])\n\t"
			 "vmovdqa %%ymm12, 384(%[out])\n\t"
			 "vmovdqa %%ymm13, 416(%[out])\n\t"
			 "vmovdqa %%ymm14, 448(%[out])\n\t"
			 "vmovdqa %%ymm15, 480(%[out])\n\t"
			 : [spinning] "=m"(spinning)
			 : [in] "r"(in), [out] "r"(out), [flag] "m"(flag)
			 : "memory", "cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7",
			   "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15");
	for (int i = 0; i < COUNT; i++)
		CHECK(!memcmp(in[i], out[i], WIDTH), "ymm%d has changed", i);
	return arg;
}

int main(int argc, char **argv)
{
	pthread_t t;

	test_init(argc, argv);
	if (!__builtin_cpu_supports("avx"))
		test_skip("no AVX");
	MUST0(pthread_create(&t, NULL, thread, NULL));
	while (!spinning)
		test_sleep_ms(1);
	test_ready();
	test_wait();
	flag = 1;
	MUST0(pthread_join(t, NULL));
	test_pass();
}
