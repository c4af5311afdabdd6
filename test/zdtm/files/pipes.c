/* SPDX-License-Identifier: Apache-2.0 */
/* Pipes with content: between processes, with one end closed, partly read, larger than usual, in packet mode.
 */
#include <fcntl.h>
#include <signal.h>

#include "zdtm.h"

#define BIG (200 << 10)

int main(int argc, char **argv)
{
	static char data[BIG], buf[BIG];
	int plain[2], half[2], eof[2], noreader[2], big[2], packet[2], size, flags;
	pid_t child;

	test_init(argc, argv);
	signal(SIGPIPE, SIG_IGN);
	test_fill(data, BIG, 1);
	MUST(pipe(plain));
	CHECK_EQ(write(plain[1], "some data", 9), 9);
	MUST(pipe2(half, O_NONBLOCK | O_CLOEXEC));
	CHECK_EQ(write(half[1], data, 10000), 10000);
	CHECK_EQ(read(half[0], buf, 3000), 3000);
	MUST(pipe(eof));
	CHECK_EQ(write(eof[1], "last", 4), 4);
	MUST(close(eof[1]));
	MUST(pipe(noreader));
	MUST(close(noreader[0]));
	MUST(pipe(big));
	size = MUST(fcntl(big[0], F_SETPIPE_SZ, 256 << 10));
	CHECK_EQ(write(big[1], data, BIG), BIG);
	MUST(pipe2(packet, O_DIRECT));
	CHECK_EQ(write(packet[1], "one", 3), 3);
	CHECK_EQ(write(packet[1], "three", 5), 5);
	flags = MUST(fcntl(half[0], F_GETFL));
	child = test_fork();
	if (!child) {
		close(plain[1]);
		test_wait();
		CHECK_EQ(read(plain[0], buf, 9), 9);
		CHECK(!memcmp(buf, "some data", 9), "the pipe holds something else");
		CHECK_EQ(read(plain[0], buf, 9), 4); /* until the parent writes */
		CHECK_EQ(read(plain[0], buf, 9), 0);
		_exit(5);
	}
	MUST(close(plain[0]));
	test_ready();
	test_wait();
	CHECK_EQ(read(half[0], buf, BIG), 7000);
	CHECK(!memcmp(buf, data + 3000, 7000), "the rest of a pipe");
	CHECK(read(half[0], buf, 1) == -1 && errno == EAGAIN, "the pipe is not empty, or blocks");
	CHECK_EQ(fcntl(half[0], F_GETFL), flags);
	CHECK_EQ(fcntl(half[1], F_GETFD), FD_CLOEXEC);
	CHECK_EQ(read(eof[0], buf, 100), 4);
	CHECK_EQ(read(eof[0], buf, 100), 0);
	CHECK(write(noreader[1], "x", 1) == -1 && errno == EPIPE, "a pipe without reader takes data");
	CHECK_EQ(fcntl(big[1], F_GETPIPE_SZ), size);
	for (int done = 0; done < BIG;) {
		ssize_t n = MUST(read(big[0], buf + done, BIG - done));

		CHECK(n > 0, "the big pipe ends after %d bytes", done);
		done += n;
	}
	test_check_fill(buf, BIG, 1, "the big pipe");
	CHECK_EQ(read(packet[0], buf, 100), 3);
	CHECK_EQ(read(packet[0], buf, 100), 5);
	test_sleep_ms(20);
	CHECK_EQ(write(plain[1], "more", 4), 4);
	MUST(close(plain[1]));
	test_reap(child, 5);
	test_pass();
}
