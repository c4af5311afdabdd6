/* SPDX-License-Identifier: Apache-2.0 */
/* An eventfd that a process outside of the tree has too, on a kernel that does not tell what kind it is. */
#include <sys/eventfd.h>

#include "zdtm.h"

int main(int argc, char **argv)
{
	char info[512];
	pid_t middle;
	uint64_t v;
	int there, back;

	test_init(argc, argv);
	there = MUST(eventfd(0, EFD_SEMAPHORE));
	back = MUST(eventfd(0, 0));
	snprintf(info, sizeof(info), "/proc/self/fdinfo/%d", there);
	test_read_file(info, info, sizeof(info));
	if (strstr(info, "eventfd-semaphore"))
		test_skip("this kernel tells whether an eventfd is a semaphore");
	middle = test_fork();
	if (!middle) {
		if (!test_fork()) {
			v = 9;
			if (read(there, &v, 8) != 8 || v != 1 || write(back, &v, 8) != 8)
				_exit(1);
			_exit(0);
		}
		_exit(0);
	}
	test_reap(middle, 0);
	test_sleep_ms(20);
	test_ready();
	test_wait();
	v = 1;
	CHECK_EQ(write(there, &v, 8), 8);
	CHECK_EQ(read(back, &v, 8), 8);
	CHECK_EQ(v, 1);
	test_pass();
}
