/* SPDX-License-Identifier: Apache-2.0 */
/* An epoll set with an entry whose number was closed while the file lives on. */
#include <sys/epoll.h>
#include <sys/eventfd.h>

#include "zdtm.h"

int main(int argc, char **argv)
{
	struct epoll_event ev = {.events = EPOLLIN, .data.u32 = 7};
	int ep, fd, kept;

	test_init(argc, argv);
	ep = MUST(epoll_create1(0));
	fd = MUST(eventfd(1, 0));
	kept = MUST(dup(fd));
	MUST(epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev));
	MUST(close(fd));
	test_ready();
	test_wait();
	ev.data.u32 = 0;
	CHECK_EQ(MUST(epoll_wait(ep, &ev, 1, 0)), 1);
	CHECK_EQ(ev.data.u32, 7);
	MUST(close(kept));
	test_pass();
}
