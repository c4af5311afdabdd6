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
 * A program that itself fetches pages from swap all the time, at its limit, is killed by that all the same:
 * the pages that are there are in use, the kernel finds none to push out, and says that there is no memory
 * (seen on Linux 6.18: docs/limits.md).  It shows as major faults.  While a process of the tree has many of
 * them, what is in swap is left there in rounds, and read when the tree is frozen and does not use its
 * memory.
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
/* Where pages go to swap between the look and the reading. */
#define BUSY_WINDOW (32u << 10)
/* Sent to swap before what is there is read: the kernel gives up where it finds nothing that has not been
 * used just now, and it does so before what it has begun to write is written. */
#define ROOM (1u << 20)

/* Major faults: counted not more often than that; what counts as many; for how long that is believed. */
#define COUNT_NS   20000000ull
#define MANY       3
#define MANY_RATE  50 /* a second */
#define BELIEVE_NS 3000000000ull

static bool in_swap(uint64_t word)
{
	return word & WORD_SWAPPED && !WORD_MARKER(word);
}

static void count_faults(struct memory *m, struct memory_process *mp)
{
	uint64_t now = now_ns(), gone = now - mp->faults_at;
	struct error ignore = ERROR_INIT;
	struct proc_stat st;

	if ((mp->faults_at && gone < COUNT_NS) || proc_stat_read(mp->pid, 0, &st, &ignore) < 0)
		return;
	uint64_t n = st.major_faults - mp->faults;

	if (mp->faults_at && n >= MANY && n * 1000000000 / gone >= MANY_RATE)
		m->swap_busy = now + BELIEVE_NS;
	mp->faults = st.major_faults;
	mp->faults_at = now;
}

size_t swapped_leave(struct memory *m, struct memory_process *mp, uint64_t addr, size_t *length)
{
	uint64_t words[PAGES];
	size_t pages, n = 1;

	if (!mp->swapped)
		return 0;
	count_faults(m, mp);
	if (now_ns() >= m->swap_busy)
		return 0;
	*length = MIN(*length, (size_t)BUSY_WINDOW);
	pages = PAGE_ROUND_UP(*length) / PAGE_SIZE_BYTES;
	if (pagemap_words(mp->pagemap_fd, addr, pages, words) < 0)
		return 0;
	while (n < pages && in_swap(words[n]) == in_swap(words[0]))
		n++;
	if (in_swap(words[0]))
		return n * PAGE_SIZE_BYTES;
	*length = MIN(*length, n * PAGE_SIZE_BYTES);
	return 0;
}

void swapped_make_room(const struct memory *m, const struct memory_process *mp)
{
	uint64_t words[PAGES];
	struct iovec out[PAGES];
	size_t room = 0;

	if (!mp->swapped || now_ns() >= m->swap_busy)
		return;
	/* What was sent is what can be there: the address space may be terabytes of nothing. */
	for (size_t i = 0; i < mp->sent.n && room < ROOM; i++) {
		const struct page_range *v = &mp->sent.r[i];

		for (uint64_t at = v->start; at < v->end && room < ROOM; at += WINDOW) {
			size_t pages = MIN(v->end - at, (uint64_t)WINDOW) / PAGE_SIZE_BYTES, n = 0;

			if (pagemap_words(mp->pagemap_fd, at, pages, words) < 0)
				break;
			for (size_t k = 0; k < pages; k++)
				if (words[k] & WORD_PRESENT)
					out[n++] = (struct iovec){(void *)(at + k * PAGE_SIZE_BYTES),
								  PAGE_SIZE_BYTES};
			if (n)
				syscall(SYS_process_madvise, mp->living_fd, out, n, MADV_PAGEOUT, 0);
			room += n * PAGE_SIZE_BYTES;
		}
	}
}

void swapped_look(struct memory_process *mp)
{
	struct sysinfo si;
	struct proc_status st;
	struct error ignore = ERROR_INIT;

	mp->swapped = false;
	if (sysinfo(&si) < 0 || !si.totalswap || proc_status_read(mp->living, 0, &st, &ignore) < 0)
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
		if (!in_swap(words[i]))
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
			syscall(SYS_process_madvise, mp->living_fd, back, n, MADV_PAGEOUT, 0);
		if (got <= 0)
			return done ? (ssize_t)done : got;
		done += (size_t)got;
		if ((size_t)got < want)
			break;
	}
	return (ssize_t)done;
}
