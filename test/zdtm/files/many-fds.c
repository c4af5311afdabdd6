/* SPDX-License-Identifier: Apache-2.0 */
/* Thousands of descriptors of several kinds, with gaps. */
#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/resource.h>

#include "zdtm.h"

#define COUNT 6000 /* more than fit into a batch of the usual size */

int main(int argc, char **argv)
{
	struct rlimit limit;
	uint64_t v;
	char c;

	test_init(argc, argv);
	MUST(getrlimit(RLIMIT_NOFILE, &limit));
	if (limit.rlim_max < 3 * COUNT)
		test_skip("needs more descriptors than the limit of %lu", (unsigned long)limit.rlim_max);
	limit.rlim_cur = limit.rlim_max;
	MUST(setrlimit(RLIMIT_NOFILE, &limit));
	test_write_file(test_path("file"), "0123456789abcdef");
	for (int i = 0; i < COUNT; i++) {
		int fd = i % 2 ? MUST(eventfd(i, 0)) : MUST(open(test_path("file"), O_RDONLY));

		if (i % 2 == 0)
			MUST(lseek(fd, i % 16, SEEK_SET));
		MUST(dup2(fd, 2 * i + COUNT / 2 + 100));
		MUST(close(fd));
	}
	test_ready();
	test_wait();
	for (int i = 0; i < COUNT; i++) {
		int fd = 2 * i + COUNT / 2 + 100;

		if (i % 2) {
			CHECK_EQ(read(fd, &v, 8), 8);
			CHECK_EQ(v, i);
		} else {
			CHECK_EQ(read(fd, &c, 1), 1);
			CHECK_EQ(c, "0123456789abcdef"[i % 16]);
		}
		CHECK_EQ(fcntl(fd + 1, F_GETFD), -1);
	}
	test_pass();
}
