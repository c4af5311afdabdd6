/* SPDX-License-Identifier: Apache-2.0 */
#include <fcntl.h>
#include <sys/eventfd.h>

#include "zdtm.h"

#define COUNTS 4

/* With little in them it is harder to tell what they are. */
static const uint64_t counts[COUNTS] = {0, 1, 2, 0xfffffffffffffffeULL};

static void check_small(int fd, uint64_t count, bool semaphore)
{
	uint64_t v, more = 3;

	if (count < 3) {
		CHECK_EQ(write(fd, &more, 8), 8);
		count += more;
	}
	CHECK_EQ(read(fd, &v, 8), 8);
	CHECK(v == (semaphore ? 1 : count), "%s of %llx gives %llx", semaphore ? "a semaphore" : "a counter",
	      (unsigned long long)count, (unsigned long long)v);
	if (!semaphore) {
		CHECK(read(fd, &v, 8) == -1 && errno == EAGAIN, "a counter gives twice");
		return;
	}
	for (uint64_t i = 1; i < count && count < 10; i++)
		CHECK_EQ(read(fd, &v, 8), 8);
	CHECK(count > 10 || (read(fd, &v, 8) == -1 && errno == EAGAIN), "a semaphore of %llx gives more",
	      (unsigned long long)count);
}

int main(int argc, char **argv)
{
	uint64_t v = 0xfffffffffffffff0ULL;
	int plain, semaphore, empty, big, small[COUNTS][2];
	pid_t child;

	test_init(argc, argv);
	plain = MUST(eventfd(17, EFD_CLOEXEC));
	semaphore = MUST(eventfd(3, EFD_SEMAPHORE | EFD_NONBLOCK));
	empty = MUST(eventfd(0, 0));
	big = MUST(eventfd(0, 0));
	CHECK_EQ(write(big, &v, 8), 8);
	for (int i = 0; i < COUNTS; i++)
		for (int k = 0; k < 2; k++) {
			small[i][k] = MUST(eventfd(0, EFD_NONBLOCK | (k ? EFD_SEMAPHORE : 0)));
			CHECK(!counts[i] || write(small[i][k], &counts[i], 8) == 8, "write %d", i);
		}
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
	for (int i = 0; i < COUNTS; i++)
		for (int k = 0; k < 2; k++)
			check_small(small[i][k], counts[i], k);
	v = 5;
	CHECK_EQ(write(empty, &v, 8), 8); /* one object in two processes */
	test_reap(child, 7);
	test_pass();
}
