/* SPDX-License-Identifier: Apache-2.0 */
/* Write protection by a program's own userfaultfd: anonymous and shared memory, and pages that are not there.
 */
#include <pthread.h>

#include "uffd.h"

#define PAGES          32
#define WP_UNPOPULATED (1 << 13)

static char *mem[2];

static void *store(void *page)
{
	*(volatile char *)page = 'x';
	return NULL;
}

/* Does a store to the page have to ask? */
static void check_store(int uffd, char *page, bool asks)
{
	pthread_t t;

	MUST0(pthread_create(&t, NULL, store, page));
	if (asks) {
		uffd_expect(uffd, page, UFFD_PAGEFAULT_FLAG_WP);
		uffd_protect(uffd, page, 1, false);
	}
	MUST0(pthread_join(t, NULL));
	uffd_expect_none(uffd);
	CHECK_EQ(*page, 'x');
}

int main(int argc, char **argv)
{
	int uffd;

	test_init(argc, argv);
	uffd = uffd_new(O_NONBLOCK,
			UFFD_FEATURE_PAGEFAULT_FLAG_WP | UFFD_FEATURE_WP_HUGETLBFS_SHMEM | WP_UNPOPULATED);
	for (int k = 0; k < 2; k++) {
		mem[k] = test_map(PAGES * PAGE, PROT_READ | PROT_WRITE,
				  MAP_ANONYMOUS | (k ? MAP_SHARED : MAP_PRIVATE));
		test_fill(mem[k], PAGES / 2 * PAGE, k);
		uffd_register(uffd, mem[k], PAGES, UFFDIO_REGISTER_MODE_WP);
		uffd_protect(uffd, mem[k], 4, true);
		uffd_protect(uffd, mem[k] + 8 * PAGE, 1, true);
		uffd_protect(uffd, mem[k] + (PAGES - 2) * PAGE, 1, true); /* no page is there */
	}
	test_ready();
	test_wait();
	for (int k = 0; k < 2; k++) {
		test_check_fill(mem[k], PAGES / 2 * PAGE, k, k ? "shared memory" : "anonymous memory");
		for (int i = 0; i < PAGES; i++)
			check_store(uffd, mem[k] + i * PAGE, i < 4 || i == 8 || i == PAGES - 2);
	}
	test_pass();
}
