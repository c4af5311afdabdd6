/* SPDX-License-Identifier: Apache-2.0 */
/* A connection that nobody has accepted yet. */
#include <sys/socket.h>
#include <sys/un.h>

#include "zdtm.h"

int main(int argc, char **argv)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX, .sun_path = "pending.sock"};
	int listener, client, fd;
	char buf[8];

	test_init(argc, argv);
	MUST(chdir(test_path(".")));
	listener = MUST(socket(AF_UNIX, SOCK_STREAM, 0));
	MUST(bind(listener, (struct sockaddr *)&a, sizeof(a)));
	MUST(listen(listener, 4));
	client = MUST(socket(AF_UNIX, SOCK_STREAM, 0));
	MUST(connect(client, (struct sockaddr *)&a, sizeof(a)));
	test_ready();
	test_wait();
	fd = MUST(accept(listener, NULL, NULL));
	CHECK_EQ(write(client, "hi", 2), 2);
	CHECK_EQ(read(fd, buf, sizeof(buf)), 2);
	CHECK_EQ(write(fd, "there", 5), 5);
	CHECK_EQ(read(client, buf, sizeof(buf)), 5);
	test_pass();
}
