/* SPDX-License-Identifier: Apache-2.0 */
/* Leases: kept, and the signal comes, with the right number, when somebody opens the file. */
#include <fcntl.h>
#include <signal.h>
#include <time.h>

#include "zdtm.h"

int main(int argc, char **argv)
{
	struct timespec patience = {10, 0};
	siginfo_t info;
	sigset_t set;
	int read_fd, write_fd;
	pid_t child;

	test_init(argc, argv);
	sigemptyset(&set);
	sigaddset(&set, SIGIO);
	sigaddset(&set, SIGRTMIN + 3);
	MUST(sigprocmask(SIG_BLOCK, &set, NULL));
	close(MUST(open(test_path("own/read"), O_RDWR | O_CREAT, 0600)));
	read_fd = MUST(open(test_path("own/read"), O_RDONLY));
	write_fd = MUST(open(test_path("own/write"), O_RDWR | O_CREAT, 0600));
	MUST(fcntl(write_fd, F_SETSIG, SIGRTMIN + 3));
	MUST(fcntl(read_fd, F_SETLEASE, F_RDLCK));
	MUST(fcntl(write_fd, F_SETLEASE, F_WRLCK));
	test_ready();
	test_wait();
	CHECK_EQ(fcntl(read_fd, F_GETLEASE), F_RDLCK);
	CHECK_EQ(fcntl(write_fd, F_GETLEASE), F_WRLCK);
	CHECK(sigtimedwait(&set, &info, &(struct timespec){0}) == -1 && errno == EAGAIN,
	      "a lease was broken by the move");
	child = test_fork();
	if (!child) {
		close(MUST(open(test_path("own/read"), O_RDONLY))); /* breaks no lease for reading */
		CHECK(open(test_path("own/write"), O_RDONLY | O_NONBLOCK) == -1 && errno == EWOULDBLOCK,
		      "the lease for writing keeps nobody out");
		close(MUST(open(test_path("own/write"), O_RDONLY))); /* once it is given up */
		_exit(1);
	}
	MUST(sigtimedwait(&set, &info, &patience));
	CHECK_EQ(info.si_signo, SIGRTMIN + 3);
	CHECK_EQ(info.si_fd, write_fd);
	MUST(fcntl(write_fd, F_SETLEASE, F_UNLCK));
	test_reap(child, 1);
	child = test_fork();
	if (!child) {
		close(MUST(open(test_path("own/read"), O_WRONLY)));
		_exit(2);
	}
	MUST(sigtimedwait(&set, &info, &patience));
	CHECK_EQ(info.si_signo, SIGIO);
	MUST(fcntl(read_fd, F_SETLEASE, F_UNLCK));
	test_reap(child, 2);
	test_pass();
}
