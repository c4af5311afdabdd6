/* SPDX-License-Identifier: Apache-2.0 */
/* Huge pages of 1 GiB. None need to be there: the mapping alone is refused. */
#include <sys/mman.h>

#include "zdtm.h"

int main(int argc, char **argv)
{
	test_init(argc, argv);
	if (mmap(NULL, 1UL << 30, PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB | MAP_NORESERVE | (30 << 26), -1, 0) == MAP_FAILED)
		test_skip("no huge pages of 1 GiB: %s", strerror(errno));
	test_ready();
	test_wait();
	test_pass();
}
