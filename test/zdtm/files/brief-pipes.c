/* SPDX-License-Identifier: Apache-2.0 */
/* One child after the other says something through a pipe of its own, and one temporary file after the other:
 * what is seen of them in a look at the running program is over a moment later, and half of it is not seen.
 */
#include <fcntl.h>
#include <stdio.h>
#include <sys/wait.h>

#include "zdtm.h"

static void child_says(int n)
{
	int ends[2], said = 0;

	MUST(pipe(ends));
	pid_t pid = test_fork();

	if (!pid) {
		close(ends[0]);
		test_sleep_ms(3);
		CHECK_EQ(write(ends[1], &n, sizeof(n)), sizeof(n));
		_exit(n % 100);
	}
	MUST(close(ends[1]));
	CHECK_EQ(read(ends[0], &said, sizeof(said)), sizeof(said));
	CHECK_EQ(said, n);
	CHECK_EQ(read(ends[0], &said, 1), 0);
	MUST(close(ends[0]));
	test_reap(pid, n % 100);
}

static void file_keeps(int n)
{
	int kept = 0, fd = MUST(open(test_path("temporary"), O_RDWR | O_CREAT | O_EXCL, 0600));

	CHECK_EQ(write(fd, &n, sizeof(n)), sizeof(n));
	test_sleep_ms(1);
	CHECK_EQ(pread(fd, &kept, sizeof(kept), 0), sizeof(kept));
	CHECK_EQ(kept, n);
	MUST(unlink(test_path("temporary")));
	MUST(close(fd));
}

int main(int argc, char **argv)
{
	int n = 0;

	test_init(argc, argv);
	test_ready();
	do {
		n++;
		child_says(n);
		file_keeps(n);
	} while (test_wait_ms(1));
	test_pass();
}
