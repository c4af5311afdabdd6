/* SPDX-License-Identifier: Apache-2.0 */
/* Which huge pages are remembered; and, on a process of our own, that they are made again and only then. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <cmocka.h>

#include "base/util.h"
#include "procfs/pagemap.h"
#include "state/memory/huge.h"

#define H    HUGE_PAGE_BYTES
#define BASE (1ull << 32)

static void add_vma(Ferry__Mm *mm, uint64_t start, uint64_t end, Ferry__VmaKind kind, uint64_t flags)
{
	Ferry__Vma *v = xmalloc(sizeof(*v));

	ferry__vma__init(v);
	v->start = start;
	v->end = end;
	v->kind = kind;
	v->flags = flags;
	v->path = xstrdup("");
	mm->vmas = xrealloc(mm->vmas, (mm->n_vmas + 1) * sizeof(*mm->vmas));
	mm->vmas[mm->n_vmas++] = v;
}

static void test_put(void **state)
{
	(void)state;
	struct memory_process mp = {0};
	Ferry__Mm *mm = xmalloc(sizeof(*mm));

	ferry__mm__init(mm);
	mm->exe = xstrdup("");
	add_vma(mm, BASE, BASE + 4 * H, FERRY__VMA_KIND__VMA_ANON, 0);
	add_vma(mm, BASE + 6 * H, BASE + 7 * H + 4096, FERRY__VMA_KIND__VMA_ANON, 0);
	add_vma(mm, BASE + 8 * H, BASE + 9 * H, FERRY__VMA_KIND__VMA_FILE, 0);
	page_set_add(&mp.huge, BASE + H, BASE + 9 * H);
	huge_put(&mp, mm);
	assert_int_equal(mm->n_huge, 4);
	assert_int_equal(mm->huge[0], BASE + H);
	assert_int_equal(mm->huge[1], BASE + 4 * H);
	assert_int_equal(mm->huge[2], BASE + 6 * H); /* whole ones only */
	assert_int_equal(mm->huge[3], BASE + 7 * H);
	assert_int_equal(page_set_bytes(&mp.huge), 4 * H);
	huge_put(&mp, mm); /* again is the same */
	assert_int_equal(mm->n_huge, 4);
	page_set_clear(&mp.huge);
	huge_put(&mp, mm);
	assert_int_equal(mm->n_huge, 0);
	page_set_deinit(&mp.huge);
	ferry__mm__free_unpacked(mm, NULL);
}

static void test_drop(void **state)
{
	(void)state;
	struct page_set huge = PAGE_SET_INIT, dropped = PAGE_SET_INIT, tell = PAGE_SET_INIT;

	page_set_add(&huge, BASE, BASE + 4 * H);
	page_set_add(&dropped, BASE - 4 * H, BASE); /* beside */
	page_set_add(&dropped, BASE + H + 8192, BASE + H + 12288);
	page_set_add(&dropped, BASE + 4 * H, BASE + 6 * H);
	huge_drop(&huge, &dropped, &tell);
	assert_int_equal(huge.n, 2);
	assert_int_equal(huge.r[0].end, BASE + H);
	assert_int_equal(huge.r[1].start, BASE + 2 * H);
	assert_int_equal(huge.r[1].end, BASE + 4 * H);
	assert_int_equal(tell.n, 1);
	assert_int_equal(page_set_bytes(&tell), 4096);
	page_set_deinit(&huge);
	page_set_deinit(&dropped);
	page_set_deinit(&tell);
}

/* --- a child with memory --------------------------------------------------------------------------- */

static bool is_huge(int pagemap, uint64_t at)
{
	struct page_set all = PAGE_SET_INIT, huge = PAGE_SET_INIT;

	assert_int_equal(pagemap_populated_huge(pagemap, at, at + H, 0, &all, &huge), 0);
	bool r = page_set_bytes(&huge) == H;

	page_set_deinit(&all);
	page_set_deinit(&huge);
	return r;
}

static void test_child(void **state)
{
	(void)state;
	char *room = mmap(NULL, 7 * H, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	uint64_t at = ((uintptr_t)room + H - 1) & ~(H - 1);
	int ready[2];
	char c;

	assert_int_equal(pipe(ready), 0);
	pid_t pid = fork();

	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		/* No advice for what has pages: khugepaged would collapse it before us. */
		memset((void *)at, 1, 3 * H);
		for (int i = 0; i < 3; i++) { /* small pages, whatever the system's setting */
			mprotect((void *)(at + i * H + 4096), 4096, PROT_READ);
			mprotect((void *)(at + i * H + 4096), 4096, PROT_READ | PROT_WRITE);
		}
		/* The first is whole. */
		madvise((void *)(at + H + 4096), 4096, MADV_DONTNEED); /* the second has a hole */
		madvise((void *)(at + 3 * H), 3 * H, MADV_HUGEPAGE);
		pid_t other = fork(); /* the third is shared with a child */

		if (!other) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			pause();
		}
		memset((void *)at, 2, 2 * H); /* own again */
		madvise((void *)(at + H + 4096), 4096, MADV_DONTNEED);
		if (write(ready[1], "x", 1) == 1)
			pause();
		_exit(0);
	}
	assert_int_equal(read(ready[0], &c, 1), 1);
	cleanup_free char *mem = xasprintf("/proc/%d/mem", pid);
	struct memory_process mp = {.pagemap_fd = pagemap_open(pid)};
	int pidfd = (int)syscall(SYS_pidfd_open, pid, 0), mem_fd = open(mem, O_RDWR);

	page_set_add(&mp.huge, at, at + 3 * H);
	huge_repair(&mp, pidfd);
	assert_true(is_huge(mp.pagemap_fd, at));
	assert_false(is_huge(mp.pagemap_fd, at + H));
	assert_false(is_huge(mp.pagemap_fd, at + 2 * H));
	assert_int_equal(huge_make(pidfd, mem_fd, mp.pagemap_fd, at, at + 5 * H), 0);
	assert_true(is_huge(mp.pagemap_fd, at));
	assert_true(is_huge(mp.pagemap_fd, at + H));      /* of what is there */
	assert_false(is_huge(mp.pagemap_fd, at + 2 * H)); /* as the other has it */
	assert_true(is_huge(mp.pagemap_fd, at + 3 * H));  /* of nothing */
	assert_true(is_huge(mp.pagemap_fd, at + 4 * H));
	assert_false(is_huge(mp.pagemap_fd, at + 5 * H));
	assert_int_equal(pread(mem_fd, &c, 1, (off_t)(at + H - 1)), 1);
	assert_int_equal(c, 2);
	assert_int_equal(pread(mem_fd, &c, 1, (off_t)(at + 3 * H)), 1);
	assert_int_equal(c, 0);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	close(pidfd);
	close(mem_fd);
	close(mp.pagemap_fd);
	close(ready[0]);
	close(ready[1]);
	page_set_deinit(&mp.huge);
	munmap(room, 7 * H);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_put),
		cmocka_unit_test(test_drop),
		cmocka_unit_test(test_child),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
