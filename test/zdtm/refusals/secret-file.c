/* SPDX-License-Identifier: Apache-2.0 */
/* A memfd_secret(2) that is open and not mapped. */
#include <sys/mman.h>
#include <sys/syscall.h>

#include "zdtm.h"

#ifndef SYS_memfd_secret
#define SYS_memfd_secret 447
#endif

int main(int argc, char **argv)
{
	int fd;

	test_init(argc, argv);
	fd = syscall(SYS_memfd_secret, 0);
	if (fd < 0)
		test_skip("no memfd_secret: %s", strerror(errno));
	MUST(ftruncate(fd, 4096));
	test_ready();
	test_wait();
	test_pass();
}
