/* SPDX-License-Identifier: Apache-2.0 */
#include "ring.h"

int main(int argc, char **argv)
{
	struct ring r;

	test_init(argc, argv);
	ring_new(&r, 4, IORING_SETUP_SQPOLL);
	test_ready();
	test_wait();
	ring_enter(&r, 0, 0);
	test_pass();
}
