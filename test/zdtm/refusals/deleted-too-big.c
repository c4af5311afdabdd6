/* SPDX-License-Identifier: Apache-2.0 */
#include <fcntl.h>

#include "zdtm.h"

int main(int argc, char **argv)
{
	static char buf[1 << 20];
	int fd;

	test_init(argc, argv);
	fd = MUST(open(test_path("gone"), O_RDWR | O_CREAT, 0600));
	for (int i = 0; i < 3; i++) {
		test_fill(buf, sizeof(buf), i);
		CHECK_EQ(write(fd, buf, sizeof(buf)), sizeof(buf));
	}
	MUST(unlink(test_path("gone")));
	test_ready();
	test_wait();
	CHECK_EQ(pread(fd, buf, sizeof(buf), 2 << 20), sizeof(buf));
	test_check_fill(buf, sizeof(buf), 2, "the deleted file");
	test_pass();
}
