/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A process that handles the faults of another, of its child (which inherits a registration by fork), and of
 * itself: three userfaultfds with the same addresses. One more was left by a process that has ended.
 */
#include <sys/wait.h>

#include "uffd.h"

#define PAGES 8

static char *mem;

static void check_page(int i)
{
	test_check_fill(mem + i * PAGE, PAGE, 100 + i, "a page from the monitor");
}

/* Registers, forks, and both touch a page each. */
static void client(int sock)
{
	int fd = uffd_new(O_NONBLOCK, UFFD_FEATURE_EVENT_FORK);
	pid_t child;

	uffd_register(fd, mem, PAGES, UFFDIO_REGISTER_MODE_MISSING);
	send_fd(sock, fd);
	close(fd);
	close(sock);
	child = test_fork();
	if (child == 0) {
		test_wait();
		check_page(0);
		check_page(1);
		_exit(5);
	}
	test_wait();
	check_page(2);
	test_reap(child, 5);
	_exit(6);
}

static void expect_and_give(int fd, int page)
{
	uffd_expect(fd, mem + page * PAGE, 0);
	uffd_copy(fd, mem + page * PAGE, 100 + page);
}

static int left_behind(void)
{
	int s[2], fd;
	pid_t child;

	MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, s));
	child = test_fork();
	if (child == 0) {
		send_fd(s[1], uffd_new(O_NONBLOCK, 0));
		_exit(0);
	}
	fd = receive_fd(s[0]);
	test_reap(child, 0);
	close(s[0]);
	close(s[1]);
	return fd;
}

int main(int argc, char **argv)
{
	int s[2], theirs, childs, own, orphan;
	struct uffd_msg msg;
	struct pollfd pfd = {.events = POLLIN};
	pid_t pid;

	test_init(argc, argv);
	mem = test_map(PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS);
	MUST(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, s));
	pid = test_fork();
	if (pid == 0) {
		close(s[0]);
		client(s[1]);
	}
	close(s[1]);
	theirs = receive_fd(s[0]);
	close(s[0]);
	pfd.fd = theirs;
	CHECK_EQ(poll(&pfd, 1, 20000), 1);
	CHECK_EQ(read(theirs, &msg, sizeof(msg)), sizeof(msg));
	CHECK_EQ(msg.event, UFFD_EVENT_FORK);
	childs = msg.arg.fork.ufd;
	own = uffd_new(O_NONBLOCK, 0);
	uffd_register(own, mem, PAGES, UFFDIO_REGISTER_MODE_MISSING);
	uffd_zero(own, mem);
	uffd_copy(childs, mem, 100);
	orphan = left_behind();
	test_ready();
	test_wait();
	CHECK_EQ(mem[0], 0);
	expect_and_give(childs, 1);
	expect_and_give(theirs, 2);
	test_reap(pid, 6);
	uffd_expect_none(own);
	for (int i = 1; i < PAGES; i++)
		CHECK(!page_is_there(mem + i * PAGE), "page %d of the monitor should be missing", i);
	uffd_copy(own, mem + PAGE, 3);
	test_check_fill(mem + PAGE, PAGE, 3, "a page of the monitor");
	errno = 0;
	CHECK(uffd_try_copy(orphan, mem + 2 * PAGE, 1) == -1 && errno == ESRCH,
	      "the userfaultfd of the process that ended works on some memory");
	test_pass();
}
