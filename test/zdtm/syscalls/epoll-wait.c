/* SPDX-License-Identifier: Apache-2.0 */
/* epoll_wait: the kernel itself ends it with EINTR when a task is stopped, so that is allowed; an event must
 * come once. */
#include <pthread.h>
#include <sys/epoll.h>

#include "zdtm.h"

static int ep;

static void *waiter(void *arg)
{
	struct epoll_event ev;
	int rc;

	do
		rc = epoll_wait(ep, &ev, 1, -1);
	while (rc < 0 && errno == EINTR);
	CHECK(rc == 1, "epoll_wait");
	CHECK_EQ(ev.data.u64, 0x1234567890abcdefULL);
	CHECK(!test_waiting(), "epoll_wait came back early");
	return arg;
}

int main(int argc, char **argv)
{
	struct epoll_event ev = {.events = EPOLLIN, .data.u64 = 0x1234567890abcdefULL};
	pthread_t t;
	int fd[2];

	test_init(argc, argv);
	MUST(pipe(fd));
	ep = MUST(epoll_create1(0));
	MUST(epoll_ctl(ep, EPOLL_CTL_ADD, fd[0], &ev));
	MUST0(pthread_create(&t, NULL, waiter, NULL));
	test_sleep_ms(20);
	test_ready();
	test_wait();
	CHECK_EQ(write(fd[1], "x", 1), 1);
	MUST0(pthread_join(t, NULL));
	test_pass();
}
