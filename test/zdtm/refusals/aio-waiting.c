/* SPDX-License-Identifier: Apache-2.0 */
#include <poll.h>
#include <sys/eventfd.h>

#include "aio.h"

int main(int argc, char **argv)
{
	aio_context_t c;
	uint64_t one = 1;
	int fd;

	test_init(argc, argv);
	fd = MUST(eventfd(0, 0));
	c = aio_new(8);
	struct iocb r = {.aio_data = 7,
			 .aio_lio_opcode = IOCB_CMD_POLL,
			 .aio_fildes = (uint32_t)fd,
			 .aio_buf = POLLIN};

	CHECK(aio_try(c, &r), "the ring is full");
	test_ready();
	test_wait();
	CHECK_EQ(write(fd, &one, sizeof(one)), sizeof(one));
	aio_expect(c, 7, POLLIN);
	test_pass();
}
