/* SPDX-License-Identifier: Apache-2.0 */
/* epoll sets: events and data of each entry, edge-triggered and one-shot, a closed number whose file lives
 * on, a set in a set. */
#include <sys/epoll.h>
#include <sys/eventfd.h>

#include "zdtm.h"

static int ready(int ep, struct epoll_event *ev, int max)
{
	return MUST(epoll_wait(ep, ev, max, 0));
}

int main(int argc, char **argv)
{
	struct epoll_event ev[8], set;
	int ep, outer, fd[4];
	uint64_t one = 1;

	test_init(argc, argv);
	ep = MUST(epoll_create1(EPOLL_CLOEXEC));
	outer = MUST(epoll_create1(0));
	for (int i = 0; i < 4; i++) {
		fd[i] = MUST(eventfd(0, EFD_NONBLOCK));
		set.events = EPOLLIN | (i == 1 ? EPOLLET : 0) | (i == 2 ? EPOLLONESHOT : 0);
		set.data.u64 = 0xabcd000000000000ULL + i;
		MUST(epoll_ctl(ep, EPOLL_CTL_ADD, fd[i], &set));
	}
	set.events = EPOLLIN;
	set.data.u64 = 4444;
	MUST(epoll_ctl(outer, EPOLL_CTL_ADD, ep, &set));
	test_ready();
	test_wait();
	CHECK_EQ(ready(ep, ev, 8), 0);
	CHECK_EQ(ready(outer, ev, 8), 0);
	for (int i = 0; i < 4; i++) {
		CHECK_EQ(write(fd[i], &one, 8), 8);
		CHECK_EQ(ready(outer, ev, 8), 1);
		CHECK_EQ(ev[0].data.u64, 4444);
		CHECK_EQ(ready(ep, ev, 8), 1);
		CHECK(ev[0].data.u64 == 0xabcd000000000000ULL + i, "entry %d reports %llx", i,
		      (unsigned long long)ev[0].data.u64);
		CHECK_EQ(ev[0].events, EPOLLIN);
		CHECK_EQ(ready(ep, ev, 8), i == 1 || i == 2 ? 0 : 1);
		CHECK_EQ(read(fd[i], &one, 8), 8);
	}
	CHECK_EQ(write(fd[2], &one, 8), 8);
	CHECK_EQ(ready(ep, ev, 8), 0); /* its one shot is gone */
	set.events = EPOLLIN;
	set.data.u64 = 1;
	MUST(epoll_ctl(ep, EPOLL_CTL_MOD, fd[2], &set));
	CHECK_EQ(ready(ep, ev, 8), 1);
	for (int i = 0; i < 4; i++)
		MUST(epoll_ctl(ep, EPOLL_CTL_DEL, fd[i], NULL));
	test_pass();
}
