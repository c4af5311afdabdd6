/* SPDX-License-Identifier: Apache-2.0 */
/* A fork leaves the ring of asynchronous I/O in the child, but not the context: the child has a copy, and a
 * context of its own. */
#include <fcntl.h>

#include "aio.h"

#define EVENTS 5

static char buf[64];

static void check_copy(aio_context_t c, const struct aio_header *was)
{
	const struct io_event *v = (const struct io_event *)(c + sizeof(struct aio_header));
	struct io_event none;

	CHECK(!memcmp((void *)aio_header(c), was, sizeof(*was)), "the copy in a child");
	for (unsigned i = 0; i < EVENTS; i++)
		CHECK_EQ(v[i].data, i);
	errno = 0;
	CHECK(syscall(SYS_io_getevents, c, 0L, 1L, &none, NULL) < 0 && errno == EINVAL,
	      "a child has its parent's context");
}

static void child(aio_context_t parents, int fd, volatile int *flag)
{
	struct aio_header was = *aio_header(parents);
	aio_context_t own = aio_new(10);

	aio_read(own, fd, buf, 3, 77);
	check_copy(parents, &was);
	*flag = 1;
	test_wait();
	check_copy(parents, &was);
	aio_expect(own, 77, 3);
	aio_read(own, fd, buf, 4, 78);
	aio_expect(own, 78, 4);
	_exit(0);
}

int main(int argc, char **argv)
{
	volatile int *flag;
	aio_context_t c;
	pid_t pid;
	int fd;

	test_init(argc, argv);
	flag = test_shared_flags(1);
	fd = MUST(open(test_path("file"), O_RDWR | O_CREAT, 0600));
	CHECK_EQ(write(fd, "0123456789", 10), 10);
	c = aio_new(10);
	for (unsigned i = 0; i < EVENTS; i++)
		aio_read(c, fd, buf, i, i);
	pid = test_fork();
	if (!pid)
		child(c, fd, flag);
	while (!*flag)
		test_sleep_ms(10);
	test_ready();
	test_wait();
	test_reap(pid, 0);
	for (unsigned i = 0; i < EVENTS; i++)
		aio_expect(c, i, i);
	aio_expect_none(c);
	test_pass();
}
