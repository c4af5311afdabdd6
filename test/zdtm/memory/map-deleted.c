/* SPDX-License-Identifier: Apache-2.0 */
/* Maps of a file that is deleted and closed: private with changes, and shared by two processes. */
#include <fcntl.h>
#include <sys/mman.h>

#include "zdtm.h"

#define SIZE (8 * 4096)

int main(int argc, char **argv)
{
	volatile int *turn;
	char *priv, *shared;
	pid_t child;
	int fd;

	test_init(argc, argv);
	turn = test_shared_flags(1);
	fd = MUST(open(test_path("gone"), O_RDWR | O_CREAT, 0644));
	MUST(ftruncate(fd, SIZE));
	shared = MUST(mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
	test_fill(shared, SIZE, 1);
	priv = MUST(mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0));
	MUST(unlink(test_path("gone")));
	MUST(close(fd));
	test_fill(priv, 4096, 2);
	child = test_fork();
	if (!child) {
		test_wait();
		while (!turn[0])
			test_sleep_ms(1);
		test_check_fill(shared, SIZE, 3, "what the parent stored");
		_exit(0);
	}
	test_ready();
	test_wait();
	test_check_fill(priv, 4096, 2, "private page");
	CHECK(!memcmp(priv + 4096, shared + 4096, SIZE - 4096), "the private map shows something else");
	test_check_fill(shared, SIZE, 1, "shared map");
	test_fill(shared, SIZE, 3);
	turn[0] = 1;
	test_reap(child, 0);
	CHECK(access(test_path("gone"), F_OK), "the deleted file is back");
	test_pass();
}
