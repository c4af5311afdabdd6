/* SPDX-License-Identifier: Apache-2.0 */
/* A userfaultfd that handles faults of the program's own instructions only, beside one that handles all. */
#include <pthread.h>

#include "uffd.h"

#ifndef UFFD_USER_MODE_ONLY
#define UFFD_USER_MODE_ONLY 1
#endif

static int zero;

static void *reader(void *page)
{
	return (void *)read(zero, page, 16);
}

int main(int argc, char **argv)
{
	int fd[2];
	pthread_t t;
	void *got;
	char *p[2];

	test_init(argc, argv);
	zero = MUST(open("/dev/zero", O_RDONLY));
	for (int i = 0; i < 2; i++) {
		fd[i] = uffd_new(O_NONBLOCK | (i ? UFFD_USER_MODE_ONLY : 0), 0);
		p[i] = test_map(8 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS);
		uffd_register(fd[i], p[i], 8, UFFDIO_REGISTER_MODE_MISSING);
		uffd_copy(fd[i], p[i], i);
	}
	test_ready();
	test_wait();
	errno = 0;
	CHECK(read(zero, p[1] + 2 * PAGE, 16) == -1 && errno == EFAULT,
	      "the kernel's fault was handled, or its page was there");
	MUST0(pthread_create(&t, NULL, reader, p[0] + 2 * PAGE));
	uffd_expect(fd[0], p[0] + 2 * PAGE, 0);
	uffd_zero(fd[0], p[0] + 2 * PAGE);
	MUST0(pthread_join(t, &got));
	CHECK_EQ((long)got, 16);
	for (int i = 0; i < 2; i++)
		test_check_fill(p[i], PAGE, i, "a page that was there");
	test_pass();
}
