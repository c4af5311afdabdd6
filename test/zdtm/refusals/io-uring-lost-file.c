/* SPDX-License-Identifier: Apache-2.0 */
#include <fcntl.h>

#include "ring.h"

int main(int argc, char **argv)
{
	int fds[2] = {-1, -1};
	struct ring r;

	test_init(argc, argv);
	ring_new(&r, 4, 0);
	fds[1] = MUST(open(test_path("file"), O_RDWR | O_CREAT, 0600));
	MUST(ring_register(&r, IORING_REGISTER_FILES, fds, 2));
	close(fds[1]);
	test_ready();
	test_wait();
	ring_rw(&r, IORING_OP_WRITE, 1, true, "abc", 3, 0, -1, 4);
	ring_expect(&r, 4, 3);
	test_pass();
}
