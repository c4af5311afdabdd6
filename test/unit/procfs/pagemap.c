/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/page_set.h"
#include "base/util.h"
#include "procfs/pagemap.h"

#define P 4096ull

static char *map(size_t pages, int flags, int fd)
{
	char *p = mmap(NULL, pages * P, PROT_READ | PROT_WRITE, flags, fd, 0);

	assert_true(p != MAP_FAILED);
	madvise(p, pages * P, MADV_NOHUGEPAGE);
	return p;
}

static void populated(const char *p, size_t pages, int private_file, struct page_set *ret)
{
	int fd = pagemap_open(getpid());

	assert_true(fd >= 0);
	page_set_clear(ret);
	assert_int_equal(pagemap_populated(fd, (uintptr_t)p, (uintptr_t)p + pages * P, private_file, ret), 0);
	close(fd);
}

static void test_anon(void **state)
{
	(void)state;
	struct page_set s = PAGE_SET_INIT;
	char *p = map(10000, MAP_PRIVATE | MAP_ANONYMOUS, -1);

	populated(p, 10000, 0, &s);
	assert_int_equal(s.n, 0);
	for (int i = 0; i < 10000; i += 2) /* more regions than one call returns */
		p[i * P] = 1;
	volatile char c = p[P]; /* the zero page: no content */

	(void)c;
	populated(p, 10000, 0, &s);
	assert_int_equal(page_set_bytes(&s), 5000 * P);
	for (int i = 0; i < 10000; i++)
		assert_int_equal(page_set_has(&s, (uintptr_t)p + i * P), i % 2 == 0);
	madvise(p, 100 * P, MADV_DONTNEED);
	populated(p, 10000, 0, &s);
	assert_int_equal(page_set_bytes(&s), 4950 * P);
	page_set_deinit(&s);
	munmap(p, 10000 * P);
}

/* What else the page table has, and what is protected there. */
static void test_mapped(void **state)
{
	(void)state;
	struct uffdio_api api = {.api = UFFD_API, .features = UFFD_FEATURE_PAGEFAULT_FLAG_WP};
	struct page_set s = PAGE_SET_INIT;
	char *p = map(16, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	int fd = pagemap_open(getpid()), uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC);
	struct uffdio_register reg = {.range = {(uintptr_t)p, 16 * P}, .mode = UFFDIO_REGISTER_MODE_WP};
	struct uffdio_writeprotect wp = {.range = {(uintptr_t)p, 2 * P}, .mode = UFFDIO_WRITEPROTECT_MODE_WP};

	memset(p, 1, 4 * P);
	volatile char c = p[5 * P]; /* the zero page */

	(void)c;
	assert_int_equal(pagemap_mapped(fd, (uintptr_t)p, (uintptr_t)p + 16 * P, &s), 0);
	assert_int_equal(page_set_bytes(&s), 5 * P);
	assert_true(page_set_has(&s, (uintptr_t)p + 5 * P));
	page_set_clear(&s);
	assert_int_equal(pagemap_protected(fd, (uintptr_t)p, (uintptr_t)p + 16 * P, &s), 0);
	assert_int_equal(s.n, 0);
	if (uffd >= 0 && ioctl(uffd, UFFDIO_API, &api) == 0) {
		assert_int_equal(ioctl(uffd, UFFDIO_REGISTER, &reg), 0);
		assert_int_equal(ioctl(uffd, UFFDIO_WRITEPROTECT, &wp), 0);
		assert_int_equal(pagemap_protected(fd, (uintptr_t)p, (uintptr_t)p + 16 * P, &s), 0);
		assert_int_equal(s.n, 1);
		assert_int_equal(s.r[0].start, (uintptr_t)p);
		assert_int_equal(page_set_bytes(&s), 2 * P);
	}
	if (uffd >= 0)
		close(uffd);
	close(fd);
	page_set_deinit(&s);
	munmap(p, 16 * P);
}

static void test_private_file(void **state)
{
	(void)state;
	struct page_set s = PAGE_SET_INIT;
	int fd = memfd_create("unit", MFD_CLOEXEC);

	assert_int_equal(ftruncate(fd, 16 * P), 0);
	char *p = map(16, MAP_PRIVATE, fd);
	volatile char c = p[0] + p[P];

	(void)c;
	p[2 * P] = 1;
	p[3 * P] = 1;
	populated(p, 16, 1, &s);
	assert_int_equal(s.n, 1);
	assert_int_equal(s.r[0].start, (uintptr_t)p + 2 * P);
	assert_int_equal(s.r[0].end, (uintptr_t)p + 4 * P);
	munmap(p, 16 * P);
	close(fd);
	page_set_deinit(&s);
}

static int register_wp(char *p, size_t pages)
{
	int uffd = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	struct uffdio_api api = {.api = UFFD_API, .features = 1 << 15};
	struct uffdio_register reg = {.range = {(uintptr_t)p, pages * P}, .mode = UFFDIO_REGISTER_MODE_WP};

	if (uffd < 0)
		return -1;
	if (ioctl(uffd, UFFDIO_API, &api) < 0 || ioctl(uffd, UFFDIO_REGISTER, &reg) < 0) {
		close(uffd);
		return -1;
	}
	return uffd;
}

static int ignore(void *ctx, const struct scan_region *r)
{
	(void)ctx;
	(void)r;
	return 0;
}

/* Private file pages that were armed and dropped leave markers, which have no content. */
static void test_markers(void **state)
{
	(void)state;
	struct page_set s = PAGE_SET_INIT;
	int file = memfd_create("unit", MFD_CLOEXEC), pm = pagemap_open(getpid());

	assert_int_equal(ftruncate(file, 16 * P), 0);
	char *p = map(16, MAP_PRIVATE, file);
	int uffd = register_wp(p, 16);

	if (uffd < 0) {
		print_message("this kernel has no asynchronous write protection\n");
		skip();
	}
	memset(p, 1, 16 * P);
	struct scan_args arm = {.start = (uintptr_t)p,
				.end = (uintptr_t)p + 16 * P,
				.flags = 3,
				.category_mask = SCAN_WRITTEN,
				.category_anyof_mask = SCAN_PRESENT | SCAN_SWAPPED,
				.return_mask = SCAN_WRITTEN};

	assert_int_equal(pagemap_scan(pm, &arm, ignore, NULL), 0);
	madvise(p + 4 * P, 8 * P, MADV_DONTNEED);
	uint64_t word;

	assert_int_equal(pread(pm, &word, 8, ((uintptr_t)p + 4 * P) / P * 8), 8);
	assert_int_equal(word >> 62, 1); /* it does look swapped */
	for (int private_file = 0; private_file < 2; private_file++) {
		populated(p, 16, private_file, &s);
		assert_int_equal(page_set_bytes(&s), 8 * P);
		assert_false(page_set_has(&s, (uintptr_t)p + 4 * P));
		assert_true(page_set_has(&s, (uintptr_t)p + 12 * P));
	}
	close(uffd);
	close(file);
	close(pm);
	munmap(p, 16 * P);
	page_set_deinit(&s);
}

static void test_sparse_is_fast(void **state)
{
	(void)state;
	const size_t pages = 64ull << 18;
	struct page_set s = PAGE_SET_INIT;
	char *p = map(pages, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1);

	for (size_t i = 0; i < pages; i += pages / 64)
		p[i * P] = 1;
	uint64_t start = now_ns();

	populated(p, pages, 0, &s);
	uint64_t took = now_ns() - start;

	assert_int_equal(page_set_bytes(&s), 64 * P);
	print_message("64 GiB with 64 pages in it: %llu us\n", (unsigned long long)took / 1000);
	assert_true(took < 100000000);
	munmap(p, pages * P);
	page_set_deinit(&s);
}

static void test_gone(void **state)
{
	(void)state;
	struct page_set s = PAGE_SET_INIT;
	pid_t pid = fork();

	if (pid == 0)
		for (;;)
			pause();
	int fd = pagemap_open(pid);

	assert_true(fd >= 0);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	assert_int_equal(pagemap_populated(fd, 0x10000, 0x7ffff0000000, 0, &s), -ESRCH);
	assert_true(pagemap_open(pid) < 0);
	close(fd);
	page_set_deinit(&s);
}

#define H (512 * P)

/* Without PAGEMAP_SCAN the same is found by frames. */
static void test_huge_words(void **state)
{
	(void)state;
	const size_t units = 12;
	struct page_set scanned = PAGE_SET_INIT, s = PAGE_SET_INIT, there = PAGE_SET_INIT;
	char *room = mmap(NULL, (units + 1) * H, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	char *p = (char *)(((uintptr_t)room + H - 1) & ~(H - 1)), *end = p + units * H;
	int fd = pagemap_open(getpid());
	volatile char c;

	assert_true(room != MAP_FAILED && fd >= 0);
	madvise(p, units * H, MADV_HUGEPAGE);
	for (size_t i = 0; i < 8; i++)
		p[i * H] = 1;
	c = p[9 * H]; /* the huge page of zeros */
	(void)c;
	madvise(p + 10 * H, H, MADV_NOHUGEPAGE);
	memset(p + 10 * H, 1, H); /* small pages */
	madvise(p + 2 * H + 5 * P, P, MADV_DONTNEED);
	if (pagemap_huge(fd, (uintptr_t)p, (uintptr_t)end, &scanned) < 0 ||
	    !page_set_has(&scanned, (uintptr_t)p))
		skip(); /* this machine makes no huge pages */
	assert_int_equal(page_set_bytes(&scanned), 7 * H);
	c = p[2 * H + 5 * P]; /* and the small one */
	assert_int_equal(pagemap_populated_words(fd, (uintptr_t)p, (uintptr_t)end, &there, &s), 0);
	assert_int_equal(page_set_bytes(&s), 7 * H);
	assert_int_equal(page_set_bytes(&there), 9 * H - P);
	assert_false(page_set_has(&there, (uintptr_t)p + 2 * H + 5 * P));
	assert_false(page_set_overlaps(&there, (uintptr_t)p + 9 * H, (uintptr_t)p + 10 * H));
	for (size_t i = 0; i < units; i++)
		assert_int_equal(page_set_has(&s, (uintptr_t)p + i * H), i < 8 && i != 2);
	/* Only whole ones, wherever it begins. */
	page_set_clear(&s);
	assert_int_equal(
		pagemap_populated_words(fd, (uintptr_t)p + 3 * P, (uintptr_t)p + 7 * H - P, &there, &s), 0);
	assert_int_equal(page_set_bytes(&s), 4 * H);
	close(fd);
	munmap(room, (units + 1) * H);
	page_set_deinit(&scanned);
	page_set_deinit(&there);
	page_set_deinit(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_anon),           cmocka_unit_test(test_mapped),
		cmocka_unit_test(test_private_file),   cmocka_unit_test(test_markers),
		cmocka_unit_test(test_sparse_is_fast), cmocka_unit_test(test_gone),
		cmocka_unit_test(test_huge_words),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
