/* SPDX-License-Identifier: Apache-2.0 */
/* Direct reads into memory all the time: what the device wrote must have arrived, also where a round
 * protected the page in between. */
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>

#include "zdtm.h"

#define SIZE (1 << 20)

int main(int argc, char **argv)
{
	unsigned char *buf;
	unsigned round = 0;
	int fd;

	test_init(argc, argv);
	fd = MUST(open(test_path("direct.data"), O_RDWR | O_CREAT | O_DIRECT | O_TRUNC, 0600));
	buf = test_map(SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS);
	test_ready();
	while (test_waiting()) {
		memset(buf, ++round & 0xff, SIZE);
		CHECK_EQ(pwrite(fd, buf, SIZE, 0), SIZE);
		memset(buf, 0, SIZE);
		CHECK_EQ(pread(fd, buf, SIZE, 0), SIZE);
		for (int i = 0; i < SIZE; i++)
			if (buf[i] != (round & 0xff))
				test_fail("round %u: byte %d is %u", round, i, buf[i]);
	}
	test_pass();
}
