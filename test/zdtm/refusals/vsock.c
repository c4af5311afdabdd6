/* SPDX-License-Identifier: Apache-2.0 */
#include <sys/socket.h>

#include "zdtm.h"

int main(int argc, char **argv)
{
	test_init(argc, argv);
	if (socket(AF_VSOCK, SOCK_STREAM, 0) < 0)
		test_skip("no vsock: %s", strerror(errno));
	test_ready();
	test_wait();
	test_pass();
}
