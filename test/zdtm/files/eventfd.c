/* SPDX-License-Identifier: Apache-2.0 */
#include <fcntl.h>
#include <sys/eventfd.h>

#include "zdtm.h"

int main(int argc, char **argv)
{
	uint64_t v = 0xfffffffffffffff0ULL;
	int plain, semaphore, empty, big;
	pid_t child;

	test_init(argc, argv);
	plain = MUST(eventfd(17, EFD_CLOEXEC));
	semaphore = MUST(eventfd(3, EFD_SEMAPHORE | EFD_NONBLOCK));
	empty = MUST(eventfd(0, 0));
	big = MUST(eventfd(0, 0));
	CHECK_EQ(write(big, &v, 8), 8);
	child = test_fork();
	if (!child) {
		CHECK_EQ(read(empty, &v, 8), 8);
		CHECK_EQ(v, 5);
		_exit(7);
	}
	test_sleep_ms(20);
	test_ready();
	test_wait();
	CHECK_EQ(fcntl(plain, F_GETFD), FD_CLOEXEC);
	CHECK_EQ(read(plain, &v, 8), 8);
	CHECK_EQ(v, 17);
	for (int i = 0; i < 3; i++) {
		CHECK_EQ(read(semaphore, &v, 8), 8);
		CHECK_EQ(v, 1);
	}
	CHECK(read(semaphore, &v, 8) == -1 && errno == EAGAIN, "the semaphore is not empty");
	CHECK_EQ(read(big, &v, 8), 8);
	CHECK(v == 0xfffffffffffffff0ULL, "the counter is %llx", (unsigned long long)v);
	v = 5;
	CHECK_EQ(write(empty, &v, 8), 8); /* one object in two processes */
	test_reap(child, 7);
	test_pass();
}
