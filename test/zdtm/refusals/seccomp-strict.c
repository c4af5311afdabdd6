/* SPDX-License-Identifier: Apache-2.0 */
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "zdtm.h"

int main(int argc, char **argv)
{
	int in[2], out[2];
	char c = 0;

	test_init(argc, argv);
	MUST(pipe(in));
	MUST(pipe(out));
	pid_t child = test_fork();

	if (child == 0) {
		MUST(prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT, 0, 0, 0));
		for (int n = 1; read(in[0], &c, 1) == 1 && c != 'e' && n == 1;)
			n = (int)write(out[1], &c, 1);
		syscall(SYS_exit, 0);
	}
	CHECK_EQ(write(in[1], "a", 1), 1);
	CHECK_EQ(read(out[0], &c, 1), 1);
	test_ready();
	test_wait();
	CHECK_EQ(write(in[1], "b", 1), 1);
	CHECK_EQ(read(out[0], &c, 1), 1);
	CHECK_EQ(c, 'b');
	CHECK_EQ(write(in[1], "e", 1), 1);
	test_reap(child, 0);
	test_pass();
}
