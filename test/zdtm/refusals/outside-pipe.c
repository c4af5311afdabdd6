/* SPDX-License-Identifier: Apache-2.0 */
/* A pipe whose other end is in a process that is not of the tree. */
#include "zdtm.h"

int main(int argc, char **argv)
{
	int there[2], back[2];
	pid_t middle;
	char c;

	test_init(argc, argv);
	MUST(pipe(there));
	MUST(pipe(back));
	middle = test_fork();
	if (!middle) {
		if (!test_fork()) {
			close(there[1]);
			close(back[0]);
			if (read(there[0], &c, 1) == 1 && write(back[1], "y", 1) != 1)
				_exit(1);
			_exit(0);
		}
		_exit(0);
	}
	test_reap(middle, 0);
	MUST(close(there[0]));
	MUST(close(back[1]));
	test_sleep_ms(20);
	test_ready();
	test_wait();
	CHECK_EQ(write(there[1], "x", 1), 1);
	CHECK_EQ(read(back[0], &c, 1), 1);
	CHECK_EQ(c, 'y');
	test_pass();
}
