/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Processes that have more descriptors open together than one process may have, some shared by all of them.
 * How many that is depends on the limit: ctest runs this once more with a low one.
 */
#include <fcntl.h>
#include <linux/kcmp.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include "zdtm.h"

#define PROCESSES 4
#define MOST      1600 /* of one process */
#define OWN       6    /* descriptors of one turn */

static int turns, shared;

static void make(int who)
{
	int two[2];

	for (int i = 0; i < turns; i++) {
		int mark = who * 10000 + i, fd = MUST(open(test_path("file"), O_RDONLY));

		MUST(lseek(fd, mark, SEEK_SET));
		MUST(eventfd(mark + 1, EFD_NONBLOCK));
		MUST(pipe(two));
		MUST(write(two[1], &mark, sizeof(mark)));

		int writer = two[1];

		MUST(socketpair(AF_UNIX, i % 3 ? SOCK_STREAM : SOCK_DGRAM, 0, two));
		MUST(send(two[0], &mark, sizeof(mark), 0));
		if (i % 2 == 0)
			continue;
		/* What was written, and an end of file. */
		MUST(close(writer));
		MUST(close(two[0]));
		CHECK_EQ(eventfd(0, 0), writer);
		CHECK_EQ(eventfd(0, 0), two[0]);
	}
}

static void check(int who, int first)
{
	for (int i = 0; i < turns; i++) {
		int mark = who * 10000 + i, got = -1, fd = first + i * OWN;
		uint64_t v;

		CHECK_EQ(lseek(fd, 0, SEEK_CUR), mark);
		CHECK_EQ(read(fd + 1, &v, 8), 8);
		CHECK_EQ(v, mark + 1);
		CHECK_EQ(read(fd + 2, &got, sizeof(got)), sizeof(got));
		CHECK_EQ(got, mark);
		CHECK_EQ(recv(fd + 5, &got, sizeof(got), 0), sizeof(got));
		CHECK_EQ(got, mark);
		if (i % 2) {
			struct pollfd p = {.fd = fd + 2, .events = POLLIN};

			MUST(poll(&p, 1, 0));
			CHECK_EQ(p.revents, POLLHUP);
			if (i % 3)
				CHECK_EQ(recv(fd + 5, &got, sizeof(got), 0), 0);
		}
	}
}

int main(int argc, char **argv)
{
	struct rlimit limit;
	pid_t children[PROCESSES];

	test_init(argc, argv);
	MUST(getrlimit(RLIMIT_NOFILE, &limit));
	limit.rlim_cur = limit.rlim_max;
	MUST(setrlimit(RLIMIT_NOFILE, &limit));
	int most = limit.rlim_max / 2 < MOST ? (int)limit.rlim_max / 2 : MOST;

	turns = most * 4 / 5 / OWN;
	shared = most / 5;
	test_write_file(test_path("file"), "nothing");
	int base = MUST(eventfd(0, 0));

	for (int i = 1; i < shared; i++)
		CHECK_EQ(eventfd(i, EFD_NONBLOCK), base + i);
	for (int who = 0; who < PROCESSES; who++) {
		children[who] = test_fork();
		if (children[who])
			continue;
		make(who);
		MUST(write(base, &(uint64_t){1}, 8));
		test_wait();
		check(who, base + shared);
		/* The same description as its parent's, at the same number. */
		for (int i = 0; i < shared; i++)
			CHECK_EQ(syscall(SYS_kcmp, getppid(), getpid(), KCMP_FILE, base + i, base + i), 0);
		_exit(0);
	}
	uint64_t made = 0, v;

	while (made < PROCESSES) {
		CHECK_EQ(read(base, &v, 8), 8);
		made += v;
	}
	test_ready();
	test_wait();
	for (int who = 0; who < PROCESSES; who++)
		test_reap(children[who], 0);
	for (int i = 1; i < shared; i++) {
		CHECK_EQ(read(base + i, &v, 8), 8);
		CHECK_EQ(v, i);
	}
	test_pass();
}
