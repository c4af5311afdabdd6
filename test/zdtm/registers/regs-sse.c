/* SPDX-License-Identifier: Apache-2.0 */
/* 16 vector registers of 16 bytes and mxcsr of a spinning thread. */
#include <pthread.h>

#include "zdtm.h"

#define WIDTH 16
#define COUNT 16

static volatile int flag, spinning;

static void *thread(void *arg)
{
	static uint8_t in[COUNT][WIDTH] __attribute__((aligned(64))),
		out[COUNT][WIDTH] __attribute__((aligned(64)));
	uint32_t mxcsr = 0x7f80 | 0x20, got, before; /* round to zero, inexact seen */

	test_fill(in, sizeof(in), 12345);
	__asm__ volatile("movdqa 0(%[in]), %%xmm0\n\t"
			 "movdqa 16(%[in]), %%xmm1\n\t"
			 "movdqa 32(%[in]), %%xmm2\n\t"
			 "movdqa 48(%[in]), %%xmm3\n\t"
			 "movdqa 64(%[in]), %%xmm4\n\t"
			 "movdqa 80(%[in]), %%xmm5\n\t"
			 "movdqa 96(%[in]), %%xmm6\n\t"
			 "movdqa 112(%[in]), %%xmm7\n\t"
			 "movdqa 128(%[in]), %%xmm8\n\t"
			 "movdqa 144(%[in]), %%xmm9\n\t"
			 "movdqa 160(%[in]), %%xmm10\n\t"
			 "movdqa 176(%[in]), %%xmm11\n\t"
			 "movdqa 192(%[in]), %%xmm12\n\t"
			 "movdqa 208(%[in]), %%xmm13\n\t"
			 "movdqa 224(%[in]), %%xmm14\n\t"
			 "movdqa 240(%[in]), %%xmm15\n\t"
			 "stmxcsr %[before]\n\tldmxcsr %[mxcsr]\n\t"
			 "movl $1, %[spinning]\n"
			 "1:\tpause\n\tcmpl $0, %[flag]\n\tje 1b\n\t"
			 "movdqa %%xmm0, 0(%[out])\n\t"
			 "movdqa %%xmm1, 16(%[out])\n\t"
			 "movdqa %%xmm2, 32(%[out])\n\t"
			 "movdqa %%xmm3, 48(%[out])\n\t"
			 "movdqa %%xmm4, 64(%[out])\n\t"
			 "movdqa %%xmm5, 80(%[out])\n\t"
			 "movdqa %%xmm6, 96(%[out])\n\t"
			 "movdqa %%xmm7, 112(%[out])\n\t"
			 "movdqa %%xmm8, 128(%[out])\n\t"
			 "movdqa %%xmm9, 144(%[out])\n\t"
			 "movdqa %%xmm10, 160(%[out])\n\t"
			 "movdqa %%xmm11, 176(%[out])\n\t"
			 "movdqa %%xmm12, 192(%[out])\n\t"
			 "movdqa %%xmm13, 208(%[out])\n\t"
			 "movdqa %%xmm14, 224(%[out])\n\t"
			 "movdqa %%xmm15, 240(%[out])\n\t"
			 "stmxcsr %[got]\n\tldmxcsr %[before]\n\t"
			 : [spinning] "=m"(spinning), [got] "=m"(got), [before] "=m"(before)
			 : [in] "r"(in), [out] "r"(out), [flag] "m"(flag), [mxcsr] "m"(mxcsr)
			 : "memory", "cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7",
			   "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15");
	for (int i = 0; i < COUNT; i++)
		CHECK(!memcmp(in[i], out[i], WIDTH), "xmm%d has changed", i);
	CHECK_EQ(got, mxcsr);
	return arg;
}

int main(int argc, char **argv)
{
	pthread_t t;

	test_init(argc, argv);
	MUST0(pthread_create(&t, NULL, thread, NULL));
	while (!spinning)
		test_sleep_ms(1);
	test_ready();
	test_wait();
	flag = 1;
	MUST0(pthread_join(t, NULL));
	test_pass();
}
