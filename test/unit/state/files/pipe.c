/* SPDX-License-Identifier: Apache-2.0 */
/* Round trips of pipes and FIFOs. */
#include "fixture.h"

#include <poll.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

static char fifo[64];

static short events_of(int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLIN | POLLOUT};

	return poll(&p, 1, 0) < 0 ? -1 : p.revents;
}

static void content_setup(int k)
{
	int p[2];

	(void)k;
	/* 0, 1: data, another size, one end not blocking */
	MUST(pipe2(p, 0) == 0 && fcntl(1, F_SETPIPE_SZ, 16384) == 16384);
	MUST(write(1, "hello", 5) == 5 && fcntl(0, F_SETFL, O_NONBLOCK) == 0);
	char first;

	MUST(read(0, &first, 1) == 1);
	/* 2, 3: packets */
	MUST(pipe2(p, O_DIRECT) == 0);
	MUST(write(3, "one", 3) == 3 && write(3, "three", 5) == 5);
	/* 4, 5: full */
	static char block[65536];

	memset(block, 'f', sizeof(block));
	MUST(pipe2(p, O_CLOEXEC) == 0 && write(5, block, sizeof(block)) == sizeof(block));
	/* 6: reading end alone, with data; 8: writing end alone, with data */
	MUST(pipe(p) == 0 && write(7, "left", 4) == 4 && close(7) == 0);
	MUST(pipe(p) == 0); /* 7, 8 */
	MUST(write(8, "unread", 6) == 6 && close(7) == 0);
	/* 9, 10 and a second reader opened by /proc */
	MUST(pipe(p) == 0);
	MUST(p[0] == 7 && p[1] == 9);
	MUST(open("/proc/self/fd/7", O_RDONLY) == 10 && open("/proc/self/fd/9", O_RDWR) == 11);
	/* 12, 13: a single packet, which must not be joined by the next */
	MUST(pipe2(p, O_DIRECT) == 0 && p[0] == 12 && write(13, "a", 1) == 1);
}

static void content_verify(int k)
{
	static char text[70000];

	(void)k;
	MUST(fcntl(1, F_GETPIPE_SZ) == 16384 && fcntl(0, F_GETFL) == O_NONBLOCK &&
	     fcntl(1, F_GETFL) == O_WRONLY);
	MUST(read(0, text, 100) == 4 && !memcmp(text, "ello", 4));
	MUST(read(0, text, 100) == -1 && errno == EAGAIN);
	MUST(fcntl(3, F_GETFL) == (O_WRONLY | O_DIRECT) && fcntl(2, F_GETFL) == 0);
	MUST(write(3, "4", 1) == 1 && write(13, "b", 1) == 1);
	MUST(read(12, text, 100) == 1 && read(12, text, 100) == 1);
	MUST(read(2, text, 100) == 3 && read(2, text, 100) == 5 && !memcmp(text, "three", 5));
	MUST(!(events_of(5) & POLLOUT) && read(4, text, sizeof(text)) == 65536 && text[65535] == 'f');
	MUST(fcntl(4, F_GETFD) & FD_CLOEXEC);
	MUST(read(6, text, 100) == 4 && read(6, text, 100) == 0);
	signal(SIGPIPE, SIG_IGN);
	MUST(events_of(8) & POLLERR && write(8, "x", 1) == -1 && errno == EPIPE);
	MUST(open("/proc/self/fd/8", O_RDONLY | O_NONBLOCK) == 14 && read(14, text, 100) == 6);
	MUST(fcntl(7, F_GETFL) == 0 && fcntl(10, F_GETFL) == 0100000 &&
	     fcntl(11, F_GETFL) == (O_RDWR | 0100000));
	MUST(write(11, "both", 4) == 4 && read(10, text, 2) == 2 && read(7, text, 2) == 2);
}

static void test_content(void **state)
{
	(void)state;
	round_trip(&(struct scenario){content_setup, content_verify, 1, {0}});
}

/* Ends in different processes; the end of file must arrive. */
static void writer_setup(int k)
{
	int p[2];

	if (k == 0) {
		MUST(pipe(p) == 0 && write(1, "abc", 3) == 3);
	} else {
		close(1);
	}
}

static void ends_verify(int k)
{
	char text[8];

	if (k == 0)
		return; /* and ends */
	MUST(read(0, text, 8) == 3);
	MUST(read(0, text, 8) == 0);
}

static void test_ends(void **state)
{
	(void)state;
	round_trip(&(struct scenario){writer_setup, ends_verify, 2, {0}});
}

static void outside_setup(int k)
{
	(void)k;
	/* A child that is not in the tree keeps the other end. */
	int p[2];

	MUST(pipe(p) == 0);
	if (fork() == 0) {
		alarm(20);
		pause();
	}
	close(1);
}

static void test_outside(void **state)
{
	(void)state;
	refused(&(struct scenario){outside_setup, NULL, 1, {0}}, 0, "outside the tree");
}

static void fifo_setup(int k)
{
	char gone[80];

	(void)k;
	MUST(open(fifo, O_RDWR) == 0);
	MUST(open(fifo, O_RDONLY) == 1 && open(fifo, O_WRONLY | O_NONBLOCK) == 2 &&
	     write(2, "in fifo", 7) == 7);
	close(0);
	snprintf(gone, sizeof(gone), "%s.gone", fifo);
	MUST(mkfifo(gone, 0600) == 0);
	MUST(open(gone, O_RDWR) == 0 && unlink(gone) == 0 && write(0, "gone", 4) == 4);
	MUST(open("/proc/self/fd/0", O_RDONLY | O_NONBLOCK) == 3);
}

static void fifo_verify(int k)
{
	char text[16];
	struct stat st;

	(void)k;
	MUST(read(1, text, 16) == 7 && !memcmp(text, "in fifo", 7));
	MUST((fcntl(2, F_GETFL) & (O_ACCMODE | O_NONBLOCK)) == (O_WRONLY | O_NONBLOCK) &&
	     !(fcntl(1, F_GETFL) & O_NONBLOCK));
	close(2);
	MUST(read(1, text, 16) == 0);
	MUST(read(3, text, 16) == 4 && fstat(0, &st) == 0 && st.st_nlink == 0 && S_ISFIFO(st.st_mode));
}

static void test_fifo(void **state)
{
	(void)state;
	round_trip(&(struct scenario){fifo_setup, fifo_verify, 1, {0}});
}

/* The target goes on: nothing may have been taken out of its pipe. */
static void test_unchanged(void **state)
{
	(void)state;
	struct fixture x;
	int queued = 0;

	start(&x, &(struct scenario){content_setup, NULL, 1, {0}});
	assert_int_equal(capture(&x), 0);
	for (int i = 0; i < 3; i++) {
		static const int fds[] = {0, 2, 4}, expect[] = {4, 8, 65536};
		int copy = sys_pidfd_getfd(x.procs[0].pidfd, fds[i]);

		assert_int_equal(ioctl(copy, FIONREAD, &queued), 0);
		assert_int_equal(queued, expect[i]);
		close(copy);
	}
	stop(&x);
	finish(&x);
}

static int set_up(void **state)
{
	snprintf(fifo, sizeof(fifo), "/tmp/ferry-unit-fifo-%d", getpid());
	return mkfifo(fifo, 0600) || make_shared(state);
}

static int tear_down(void **state)
{
	(void)state;
	return unlink(fifo);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_content),   cmocka_unit_test(test_ends),
		cmocka_unit_test(test_outside),   cmocka_unit_test(test_fifo),
		cmocka_unit_test(test_unchanged),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
