/* SPDX-License-Identifier: Apache-2.0 */
/* Memory of memfd_secret(2), which not even the kernel can read. */
#include <sys/mman.h>
#include <sys/syscall.h>

#include "zdtm.h"

#ifndef SYS_memfd_secret
#define SYS_memfd_secret 447
#endif

int main(int argc, char **argv)
{
	char *p;
	int fd;

	test_init(argc, argv);
	fd = syscall(SYS_memfd_secret, 0);
	if (fd < 0)
		test_skip("no memfd_secret: %s", strerror(errno));
	MUST(ftruncate(fd, 4096));
	p = MUST(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
	close(fd);
	*p = 's';
	test_ready();
	test_wait();
	CHECK_EQ(*p, 's');
	test_pass();
}
