/* SPDX-License-Identifier: Apache-2.0 */
/* Threads and processes that wait for a lock still wait, in their order, and get it when it is let go. */
#include <fcntl.h>
#include <pthread.h>
#include <sys/file.h>

#include "zdtm.h"

static volatile int *got;
static int file;

static int set(int fd, int cmd, int type)
{
	struct flock l = {.l_type = type, .l_whence = SEEK_SET, .l_start = 0, .l_len = 10};

	return fcntl(fd, cmd, &l);
}

static void *ofd_waiter(void *arg)
{
	int fd = MUST(open(test_path("own/c"), O_RDWR));

	*(pid_t *)arg = gettid();
	MUST(set(fd, F_OFD_SETLKW, F_WRLCK));
	got[2] = 1;
	return NULL;
}

int main(int argc, char **argv)
{
	volatile pid_t tid = 0;
	pthread_t thread;
	pid_t posix, flocker;
	int b, c;

	test_init(argc, argv);
	got = test_shared_flags(4);
	file = MUST(open(test_path("own/a"), O_RDWR | O_CREAT, 0600));
	b = MUST(open(test_path("own/b"), O_RDWR | O_CREAT, 0600));
	c = MUST(open(test_path("own/c"), O_RDWR | O_CREAT, 0600));
	MUST(set(file, F_SETLK, F_WRLCK));
	MUST(flock(b, LOCK_EX));
	MUST(set(c, F_OFD_SETLK, F_WRLCK));
	posix = test_fork();
	if (!posix) {
		MUST(set(file, F_SETLKW, F_WRLCK));
		got[0] = 1;
		_exit(1);
	}
	flocker = test_fork();
	if (!flocker) {
		int fd = MUST(open(test_path("own/b"), O_RDWR));

		MUST(flock(fd, LOCK_EX));
		got[1] = 1;
		_exit(2);
	}
	MUST0(pthread_create(&thread, NULL, ofd_waiter, (void *)&tid));
	while (!tid)
		test_sleep_ms(1);
	test_wait_state(posix, "S");
	test_wait_state(flocker, "S");
	test_wait_state(tid, "S");
	test_sleep_ms(20);
	test_ready();
	test_wait();
	test_sleep_ms(50);
	CHECK(!got[0] && !got[1] && !got[2], "a lock was got that another one held: %d %d %d", got[0], got[1],
	      got[2]);
	MUST(set(file, F_SETLK, F_UNLCK));
	test_reap(posix, 1);
	MUST(flock(b, LOCK_UN));
	test_reap(flocker, 2);
	MUST(set(c, F_OFD_SETLK, F_UNLCK));
	MUST0(pthread_join(thread, NULL));
	CHECK(got[0] && got[1] && got[2], "a lock was not got");
	test_pass();
}
