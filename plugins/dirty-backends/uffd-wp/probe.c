/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the kernel really does is found out with a few pages of our own memory, not from its version: fixes
 * travel. Known defects of kernels that have the calls: a dropped page, or a whole dropped huge page, is not
 * reported as written; a hole without a page table is not reported.  All three would lose MADV_DONTNEED of
 * anonymous memory.
 */
#include "uffd.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Newer than the headers of older distributions. */
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif
#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102
#endif
#define HUGE (2ull << 20)

struct lab {
	int uffd, pagemap;
	char *area; /* HUGE aligned, 3 * HUGE */
	void *map;
	size_t map_size;
};

static int add_bytes(void *ctx, const struct region *r)
{
	*(uint64_t *)ctx += r->end - r->start;
	return 0;
}

static int64_t written(const struct lab *l, uint64_t size)
{
	uint64_t sum = 0;
	int r = uffd_written(l->pagemap, (uintptr_t)l->area, (uintptr_t)l->area + size, add_bytes, &sum);

	return r < 0 ? r : (int64_t)sum;
}

static int64_t arm(const struct lab *l, uint64_t size)
{
	uint64_t sum = 0;
	int r = uffd_arm(l->pagemap, (uintptr_t)l->area, (uintptr_t)l->area + size, add_bytes, &sum);

	return r < 0 ? r : (int64_t)sum;
}

/* A fresh, registered area. */
static int fresh(struct lab *l, int advice)
{
	if (l->map)
		munmap(l->map, l->map_size);
	l->map_size = 4 * HUGE;
	l->map = mmap(NULL, l->map_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
		      -1, 0);
	if (l->map == MAP_FAILED) {
		l->map = NULL;
		return -errno;
	}
	l->area = (char *)(((uintptr_t)l->map + HUGE - 1) & ~(HUGE - 1));
	madvise(l->area, 3 * HUGE, advice);
	return uffd_register(l->uffd, (uintptr_t)l->area, (uintptr_t)l->area + 3 * HUGE);
}

/* One page: armed it is clean, stored to it is written, and it is told once. */
static int basics(struct lab *l, char *why, size_t size)
{
	int r = fresh(l, MADV_NOHUGEPAGE);

	if (r < 0)
		return fail(why, size, -r, "cannot register memory for write protection");
	l->area[0] = 1;
	int64_t first = arm(l, HUGE), clean = written(l, PAGE);

	l->area[0] = 2;
	int64_t stored = arm(l, HUGE), again = written(l, PAGE);

	if (first == -ENOTTY || first == -EINVAL)
		return refuse(why, size, ENOSYS, "the kernel has no PAGEMAP_SCAN (it came with 6.7)");
	if (first < 0)
		return fail(why, size, (int)-first, "PAGEMAP_SCAN failed");
	if (first != (int64_t)PAGE || clean != 0 || stored != (int64_t)PAGE || again != 0)
		return refuse(why, size, EIO,
			      "the kernel's write tracking does not work: a page was reported %lld, %lld, "
			      "%lld, %lld "
			      "bytes written where 4096, 0, 4096, 0 is right",
			      (long long)first, (long long)clean, (long long)stored, (long long)again);
	return 0;
}

/* Small pages that are dropped, and a range that never had a page table. */
static bool small_drops_are_seen(struct lab *l)
{
	if (fresh(l, MADV_NOHUGEPAGE) < 0)
		return false;
	memset(l->area, 1, HUGE + PAGE);
	if (arm(l, 3 * HUGE) < 0 || written(l, HUGE + PAGE) != 0)
		return false;
	if (madvise(l->area + 3 * PAGE, PAGE, MADV_DONTNEED) < 0 || written(l, HUGE) != (int64_t)PAGE)
		return false;
	if (madvise(l->area, HUGE, MADV_DONTNEED) < 0 || written(l, HUGE) != (int64_t)HUGE)
		return false;
	/* all but the page behind the first huge page */
	return written(l, 3 * HUGE) == (int64_t)(3 * HUGE - PAGE);
}

static int is_huge(void *ctx, const struct region *r)
{
	*(bool *)ctx = r->end - r->start == HUGE && (r->categories & CAT_HUGE);
	return 0;
}

static bool huge_now(const struct lab *l)
{
	const struct scan s = {.start = (uintptr_t)l->area,
			       .end = (uintptr_t)l->area + HUGE,
			       .anyof = CAT_POPULATED,
			       .ret = CAT_PRESENT | CAT_HUGE};
	bool huge = false;

	return pages_scan(l->pagemap, &s, is_huge, &huge) == 0 && huge;
}

/* A whole huge page that is dropped. Where none can be had nothing is known: then not. */
static bool huge_drop_is_seen(struct lab *l)
{
	if (fresh(l, MADV_HUGEPAGE) < 0)
		return false;
	memset(l->area, 1, HUGE);
	if (!huge_now(l))
		madvise(l->area, HUGE, MADV_COLLAPSE);
	if (!huge_now(l) || arm(l, HUGE) < 0 || written(l, HUGE) != 0)
		return false;
	return madvise(l->area, HUGE, MADV_DONTNEED) == 0 && written(l, HUGE) == (int64_t)HUGE;
}

static int open_lab(struct lab *l, char *why, size_t size)
{
	l->uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	if (l->uffd < 0 && errno == EPERM)
		l->uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY);
	if (l->uffd < 0)
		return fail(why, size, errno, "cannot create a userfaultfd");
	int r = uffd_handshake(l->uffd, 0);

	if (r == -EINVAL)
		return refuse(
			why, size, ENOSYS,
			"the kernel's userfaultfd has no asynchronous write protection (it came with 6.7)");
	if (r < 0)
		return fail(why, size, -r, "userfaultfd refused the handshake");
	l->pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	if (l->pagemap < 0)
		return fail(why, size, errno, "cannot open /proc/self/pagemap");
	return 0;
}

/* Tried on memory that is not protected: there the call would not end. */
static bool guards_in_files(void)
{
	int fd = memfd_create("ferry-probe", MFD_CLOEXEC);
	char *p = fd >= 0 && ftruncate(fd, PAGE) == 0
			  ? mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0)
			  : MAP_FAILED;
	bool yes = true; /* when in doubt */

	if (p != MAP_FAILED) {
		yes = madvise(p, PAGE, MADV_GUARD_INSTALL) == 0;
		munmap(p, PAGE);
	}
	if (fd >= 0)
		close(fd);
	return yes;
}

int uffd_probe(struct uffd_kernel *ret, char *why, size_t why_size)
{
	struct lab l = {.uffd = -1, .pagemap = -1};
	int r = open_lab(&l, why, why_size);

	if (r == 0)
		r = basics(&l, why, why_size);
	if (r == 0)
		*ret = (struct uffd_kernel){.complete = !small_drops_are_seen(&l) || !huge_drop_is_seen(&l),
					    .guards = guards_in_files()};
	if (l.map)
		munmap(l.map, l.map_size);
	if (l.uffd >= 0)
		close(l.uffd);
	if (l.pagemap >= 0)
		close(l.pagemap);
	return r;
}
