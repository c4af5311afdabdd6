/* SPDX-License-Identifier: Apache-2.0 */
/* The tag is that of one of the last slots: kernels before 6.13 keep tags in pages of 512. */
#include <fcntl.h>

#include "ring.h"

#define SLOTS 600

int main(int argc, char **argv)
{
	static int fds[SLOTS];
	static uint64_t tags[SLOTS];
	struct ring r;

	test_init(argc, argv);
	ring_new(&r, 4, 0);
	for (int i = 0; i < SLOTS; i++)
		fds[i] = -1;
	fds[3] = fds[SLOTS - 2] = MUST(open("/dev/null", O_RDWR));
	tags[SLOTS - 2] = 77;
	struct io_uring_rsrc_register reg = {.nr = SLOTS, .data = (uintptr_t)fds, .tags = (uintptr_t)tags};

	if (ring_register(&r, IORING_REGISTER_FILES2, &reg, sizeof(reg)) < 0)
		test_skip("no tags of registered files: %s", strerror(errno));
	test_ready();
	test_wait();
	ring_rw(&r, IORING_OP_WRITE, SLOTS - 2, true, "abc", 3, 0, -1, 4);
	ring_expect(&r, 4, 3);
	test_pass();
}
