/* SPDX-License-Identifier: Apache-2.0 */
/*
 * On a kernel without soft-dirty the reset succeeds all the same and nothing is ever marked: only a store
 * tells.  The experiment resets the marks of the whole process that makes it, so that is not us (somebody may
 * be following us with them) but a child, made without a signal for its end: it is nobody else's to wait for.
 */
#include "soft_dirty.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define N 8ul

enum finding {
	WORKS_WITH_WORDS = 20, /* an exit status: not one of a sanitizer or a shell */
	WORKS_WITH_SCAN,
	NO_MEMORY,
	NO_CLEAR_REFS,
	NO_PAGEMAP,
	NEVER_CLEARED,
	NEVER_MARKED,
	LOST_BY_MPROTECT,
	WRONG_PAGES,
};

/* The marks of N pages, as bits. -1: cannot be read. */
static long marks(int pagemap, const char *p)
{
	uint64_t word[N];
	long bits = 0;

	if (pread(pagemap, word, sizeof(word), (off_t)((uintptr_t)p / PAGE * 8)) != (ssize_t)sizeof(word))
		return -1;
	for (unsigned i = 0; i < N; i++)
		bits |= (long)(word[i] >> 55 & 1) << i;
	return bits;
}

static int add_bits(void *ctx, const struct region *r)
{
	uint64_t *v = ctx;

	for (uint64_t a = r->start; a < r->end; a += PAGE)
		v[1] |= 1ull << (a - v[0]) / PAGE;
	return 0;
}

static enum finding experiment(void)
{
	char *p = mmap(NULL, N * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	int clear = open("/proc/self/clear_refs", O_WRONLY | O_CLOEXEC);

	if (p == MAP_FAILED)
		return NO_MEMORY;
	if (clear < 0)
		return NO_CLEAR_REFS;
	for (unsigned long i = 0; i < N; i++)
		p[i * PAGE] = 1;
	if (pagemap < 0 || marks(pagemap, p) < 0)
		return NO_PAGEMAP;
	if (write(clear, "4", 1) != 1)
		return NO_CLEAR_REFS;
	if (marks(pagemap, p) != 0)
		return NEVER_CLEARED;
	(void)*(volatile char *)&p[2 * PAGE];
	*(volatile char *)&p[1 * PAGE] = 2;
	if (marks(pagemap, p) == 0)
		return NEVER_MARKED;
	mprotect(p, N * PAGE, PROT_READ);
	mprotect(p, N * PAGE, PROT_READ | PROT_WRITE);
	*(volatile char *)&p[3 * PAGE] = 2;
	long found = marks(pagemap, p);

	if (!(found & 1 << 3))
		return LOST_BY_MPROTECT;
	if ((found & 0xa) != 0xa)
		return WRONG_PAGES;
	uint64_t told[2] = {(uintptr_t)p, 0};
	const struct scan s = {.start = (uintptr_t)p,
			       .end = (uintptr_t)p + N * PAGE,
			       .mask = CAT_SOFT_DIRTY,
			       .ret = CAT_SOFT_DIRTY};

	return pages_scan(pagemap, &s, add_bits, told) == 0 && told[1] == (uint64_t)found ? WORKS_WITH_SCAN
											  : WORKS_WITH_WORDS;
}

static int verdict(int status, bool *ret_scan, char *why, size_t size)
{
	switch (WIFEXITED(status) ? WEXITSTATUS(status) : -1) {
	case WORKS_WITH_SCAN:
	case WORKS_WITH_WORDS:
		*ret_scan = WEXITSTATUS(status) == WORKS_WITH_SCAN;
		return 0;
	case NO_MEMORY:
		return fail(why, size, ENOMEM, "cannot map memory for an experiment");
	case NO_CLEAR_REFS:
		return refuse(why, size, ENOSYS,
			      "the kernel has no /proc/PID/clear_refs (CONFIG_PROC_PAGE_MONITOR)");
	case NO_PAGEMAP:
		return refuse(why, size, EACCES, "/proc/PID/pagemap cannot be read");
	case NEVER_CLEARED:
		return refuse(why, size, EIO, "marks of written pages stay when they are reset");
	case NEVER_MARKED:
		return refuse(why, size, ENOSYS,
			      "the kernel does not mark written pages (CONFIG_MEM_SOFT_DIRTY is not set)");
	case LOST_BY_MPROTECT:
		return refuse(why, size, EIO, "this kernel loses marks of written pages after mprotect(2)");
	case WRONG_PAGES:
		return refuse(why, size, EIO, "this kernel marks other pages than those that were written");
	default:
		return refuse(why, size, EIO, "the experiment ended with wait status %x", (unsigned)status);
	}
}

int soft_dirty_probe(bool *ret_scan, char *why, size_t why_size)
{
	long pid = syscall(SYS_clone, 0, 0, 0, 0, 0);
	int status;

	if (pid == 0)
		syscall(SYS_exit_group, experiment());
	if (pid < 0)
		return fail(why, why_size, errno, "cannot make a process for an experiment");
	while (waitpid((pid_t)pid, &status, __WALL) < 0)
		if (errno != EINTR)
			return fail(why, why_size, errno, "cannot wait for an experiment");
	return verdict(status, ret_scan, why, why_size);
}
