/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* A program whose userfaultfd is in the hands of a process that is not in its tree. */
#include "uffd.h"

/* Gives the first page that is missed. */
static inline void monitor(int sock)
{
	struct uffd_msg msg;
	struct pollfd pfd = {.events = POLLIN};

	pfd.fd = receive_fd(sock);
	close(sock);
	if (poll(&pfd, 1, -1) == 1 && read(pfd.fd, &msg, sizeof(msg)) == sizeof(msg))
		uffd_copy(pfd.fd, (void *)(uintptr_t)(msg.arg.pagefault.address & ~(PAGE - 1)), 9);
	_exit(0);
}

/* @keep: the program has the descriptor, too. */
static inline void outside_monitor_main(bool keep)
{
	pid_t middle;
	int s[2], fd;
	char *p;

	MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, s));
	middle = test_fork();
	if (!middle) {
		close(s[1]);
		if (!test_fork())
			monitor(s[0]);
		_exit(0);
	}
	test_reap(middle, 0);
	close(s[0]);
	p = test_map(4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS);
	fd = uffd_new(O_NONBLOCK, 0);
	uffd_register(fd, p, 4, UFFDIO_REGISTER_MODE_MISSING);
	send_fd(s[1], fd);
	CHECK_EQ(read(s[1], &(char){0}, 1), 0); /* until it has the descriptor and has closed the socket */
	close(s[1]);
	if (!keep)
		close(fd);
	test_ready();
	test_wait();
	test_check_fill(p + 2 * PAGE, PAGE, 9, "the page that the monitor gives");
	test_pass();
}
