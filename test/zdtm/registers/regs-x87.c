/* SPDX-License-Identifier: Apache-2.0 */
/* The x87 stack, control word and status of a spinning thread. */
#include <pthread.h>

#include "zdtm.h"

static volatile int flag, spinning;

struct fpu_env {
	uint16_t control, pad0, status, pad1, tag, pad2;
	uint32_t ip, cs_opcode, dp, ds;
};

static void *thread(void *arg)
{
	uint16_t control = 0xf7f; /* round to zero, 64 bit mantissa, all masked */
	struct fpu_env env;
	double in[7], out[7];

	for (int i = 0; i < 7; i++)
		in[i] = 1.5 * i + 0.25;
	__asm__ volatile("fninit\n\t"
			 "fldcw %[control]\n\t"
			 "fldl (%[in])\n\tfldl 8(%[in])\n\tfldl 16(%[in])\n\tfldl 24(%[in])\n\t"
			 "fldl 32(%[in])\n\tfldl 40(%[in])\n\tfldl 48(%[in])\n\t"
			 "movl $1, %[spinning]\n"
			 "1:\tpause\n\tcmpl $0, %[flag]\n\tje 1b\n\t"
			 "fnstenv %[env]\n\tfldcw %[control]\n\t"
			 "fstpl 48(%[out])\n\tfstpl 40(%[out])\n\tfstpl 32(%[out])\n\tfstpl 24(%[out])\n\t"
			 "fstpl 16(%[out])\n\tfstpl 8(%[out])\n\tfstpl (%[out])\n\tfninit\n\t"
			 : [env] "=m"(env), [spinning] "=m"(spinning)
			 : [in] "r"(in), [out] "r"(out), [control] "m"(control), [flag] "m"(flag)
			 : "memory", "cc", "st", "st(1)", "st(2)", "st(3)", "st(4)", "st(5)", "st(6)",
			   "st(7)");
	for (int i = 0; i < 7; i++)
		CHECK(in[i] == out[i], "st register %d is %f, was %f", i, out[i], in[i]);
	CHECK_EQ(env.control, control);
	CHECK_EQ(env.status >> 11 & 7, 1); /* seven pushed: top of stack is 1 */
	CHECK_EQ(env.tag & 3, 3);          /* register 0 is empty */
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
