/* SPDX-License-Identifier: Apache-2.0 */
/* Minor faults of shared memory: pages that are in the file, and in the page table or not. */
#include <pthread.h>

#include "uffd.h"

#define PAGES 16

static void *load(void *page)
{
	return (void *)(long)*(volatile unsigned char *)page;
}

int main(int argc, char **argv)
{
	struct uffdio_continue next = {0};
	unsigned char first[8];
	pthread_t t;
	void *got;
	char *a, *b;
	int fd, uffd;

	test_init(argc, argv);
	uffd = uffd_new(O_NONBLOCK, UFFD_FEATURE_MINOR_SHMEM);
	fd = MUST(memfd_create("minor", MFD_CLOEXEC));
	MUST(ftruncate(fd, PAGES * PAGE));
	a = MUST(mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
	b = MUST(mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
	test_fill(a, PAGES * PAGE, 7);
	uffd_register(uffd, b, PAGES, UFFDIO_REGISTER_MODE_MINOR);
	next.range.start = (uintptr_t)b;
	next.range.len = 4 * PAGE;
	MUST(ioctl(uffd, UFFDIO_CONTINUE, &next));
	test_ready();
	test_wait();
	for (int i = 0; i < PAGES; i++)
		CHECK(page_is_there(b + i * PAGE) == (i < 4), "page %d is %sthere", i, i < 4 ? "not " : "");
	test_check_fill(b, 4 * PAGE, 7, "the pages that were continued");
	uffd_expect_none(uffd);
	MUST0(pthread_create(&t, NULL, load, b + 9 * PAGE));
	uffd_expect(uffd, b + 9 * PAGE, UFFD_PAGEFAULT_FLAG_MINOR);
	next.range.start = (uintptr_t)b + 9 * PAGE;
	next.range.len = PAGE;
	MUST(ioctl(uffd, UFFDIO_CONTINUE, &next));
	MUST0(pthread_join(t, &got));
	memcpy(first, a + 9 * PAGE, 8);
	CHECK_EQ((long)got, first[0]);
	test_check_fill(a, PAGES * PAGE, 7, "the other mapping");
	test_pass();
}
