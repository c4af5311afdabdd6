/* SPDX-License-Identifier: Apache-2.0 */
/* The calls of the kernel that all is made of. */
#include "uffd.h"

#include <errno.h>
#include <sys/ioctl.h>

int uffd_handshake(int uffd, uint64_t more)
{
	struct uffdio_api api = {.api = UFFD_API,
				 .features = UFFD_FEATURE_WP_ASYNC | UFFD_FEATURE_WP_UNPOPULATED |
					     UFFD_FEATURE_PAGEFAULT_FLAG_WP |
					     UFFD_FEATURE_WP_HUGETLBFS_SHMEM | more};

	return ioctl(uffd, UFFDIO_API, &api) < 0 ? -errno : 0;
}

int uffd_register(int uffd, uint64_t start, uint64_t end)
{
	struct uffdio_register reg = {.range = {start, end - start}, .mode = UFFDIO_REGISTER_MODE_WP};

	return ioctl(uffd, UFFDIO_REGISTER, &reg) < 0 ? -errno : 0;
}

void uffd_unregister(int uffd, uint64_t start, uint64_t end)
{
	struct uffdio_range range = {start, end - start};

	ioctl(uffd, UFFDIO_UNREGISTER, &range);
}

int uffd_unprotect(int uffd, uint64_t start, uint64_t end)
{
	struct uffdio_writeprotect wp = {.range = {start, end - start}};

	return ioctl(uffd, UFFDIO_WRITEPROTECT, &wp) < 0 ? -errno : 0;
}

int uffd_arm(int pagemap, uint64_t start, uint64_t end, scan_each each, void *ctx)
{
	const struct scan s = {.start = start,
			       .end = end,
			       .flags = SCAN_ARM | SCAN_CHECK,
			       .mask = CAT_WRITTEN,
			       .anyof = CAT_POPULATED,
			       .ret = CAT_WRITTEN};

	return pages_scan_split(pagemap, &s, pages_scan_parts(end - start), each, ctx);
}

int uffd_written(int pagemap, uint64_t start, uint64_t end, scan_each each, void *ctx)
{
	const struct scan s = {
		.start = start, .end = end, .flags = SCAN_CHECK, .mask = CAT_WRITTEN, .ret = CAT_WRITTEN};

	return pages_scan_split(pagemap, &s, pages_scan_parts(end - start), each, ctx);
}
