/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading memory that is partly in swap.
 *
 * A page that is read comes back from swap, and is charged to the memory cgroup of the target.  One that is
 * near its limit, with much of it in swap, would have to push out its other pages for that, which the program
 * is using, or be killed for lack of memory: by being copied.  So what was in swap goes back there as soon as
 * it was read, a little at a time: it is clean and the kernel still knows its place, so that it only has to
 * let go of it (process_madvise(MADV_PAGEOUT)).  Nothing changes for the program; protection against writing
 * stays with the page.
 *
 * Where there is no swap, or nothing of the process in it, none of this is asked.
 */
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/sysinfo.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/util.h"
#include "procfs/pagemap.h"
#include "procfs/procfs.h"
#include "state/memory/memory.h"

#ifndef SYS_process_madvise
#define SYS_process_madvise 440
#endif
#ifndef MADV_PAGEOUT
#define MADV_PAGEOUT 21
#endif

/* Read at a time: by so much the target grows for a moment. */
#define WINDOW (256u << 10)
#define PAGES  (WINDOW / PAGE_SIZE_BYTES)

void swapped_look(struct memory_process *mp)
{
	struct sysinfo si;
	struct proc_status st;
	struct error ignore = ERROR_INIT;

	mp->swapped = false;
	if (sysinfo(&si) < 0 || !si.totalswap || proc_status_read(mp->pid, 0, &st, &ignore) < 0)
		return;
	mp->swapped = st.swap_kb > 0;
	proc_status_deinit(&st);
}

/* Runs of pages in swap. */
static unsigned find(const struct memory_process *mp, uint64_t start, size_t pages, struct iovec *ret)
{
	uint64_t words[PAGES];
	unsigned n = 0;

	if (pagemap_words(mp->pagemap_fd, start, pages, words) < 0)
		return 0;
	for (size_t i = 0; i < pages; i++, start += PAGE_SIZE_BYTES) {
		if (!(words[i] & WORD_SWAPPED) || WORD_MARKER(words[i]))
			continue;
		if (n && (uint64_t)ret[n - 1].iov_base + ret[n - 1].iov_len == start)
			ret[n - 1].iov_len += PAGE_SIZE_BYTES;
		else
			ret[n++] = (struct iovec){(void *)start, PAGE_SIZE_BYTES};
	}
	return n;
}

ssize_t memory_read(const struct memory_process *mp, void *data, size_t length, uint64_t addr)
{
	struct iovec back[PAGES];
	size_t done = 0;

	if (!mp->swapped)
		return pread(mp->mem_fd, data, length, (off_t)addr);
	while (done < length) {
		size_t want = MIN(length - done, (size_t)WINDOW);
		unsigned n = find(mp, addr + done, PAGE_ROUND_UP(want) / PAGE_SIZE_BYTES, back);
		ssize_t got = pread(mp->mem_fd, (char *)data + done, want, (off_t)(addr + done));

		if (n)
			syscall(SYS_process_madvise, mp->pidfd, back, n, MADV_PAGEOUT, 0);
		if (got <= 0)
			return done ? (ssize_t)done : got;
		done += (size_t)got;
		if ((size_t)got < want)
			break;
	}
	return (ssize_t)done;
}
