/* SPDX-License-Identifier: Apache-2.0 */
#include <fcntl.h>
#include <pty.h>
#include <stdlib.h>

#include "zdtm.h"

int main(int argc, char **argv)
{
	int master, slave;
	char c;

	test_init(argc, argv);
	if (openpty(&master, &slave, NULL, NULL, NULL))
		test_skip("no pseudo-terminal here: %s", strerror(errno));
	test_ready();
	test_wait();
	CHECK_EQ(write(slave, "x", 1), 1);
	CHECK_EQ(read(master, &c, 1), 1);
	test_pass();
}
