/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Zero pages: what anonymous memory has after a read where nothing was.  Their entries in the page table say
 * nothing of what was there before, so they are told by their frames: the small one's is that of a page of
 * ours that was only read, the huge one comes and goes and is known by /proc/kpageflags.
 */
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "pages.h"

#define FRAME(word)    ((word) & ((1ull << 55) - 1))
#define IN_HUGE        511ull
#define FRAME_OF_ZEROS (1ull << 24) /* KPF_ZERO_PAGE */

static bool is_of_zeros(int frames, uint64_t frame)
{
	uint64_t flags;

	return pread(frames, &flags, sizeof(flags), (off_t)(frame * 8)) == sizeof(flags) &&
	       (flags & FRAME_OF_ZEROS);
}

/* The frame of the small one, 0: cannot be seen. */
static uint64_t small_frame(void)
{
	int pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	char *p = mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	uint64_t word = 0;

	if (pagemap >= 0 && p != MAP_FAILED) {
		madvise(p, PAGE, MADV_NOHUGEPAGE);
		(void)*(volatile char *)p;
		if (pread(pagemap, &word, sizeof(word), (off_t)((uintptr_t)p / PAGE * 8)) != sizeof(word))
			word = 0;
	}
	if (p != MAP_FAILED)
		munmap(p, PAGE);
	if (pagemap >= 0)
		close(pagemap);
	return FRAME(word);
}

/* What all sessions of this process use. */
static struct {
	unsigned users;
	int frames;     /* /proc/kpageflags */
	uint64_t small; /* the frame of the small one */
	uint64_t huge;  /* the last one that was asked for, and what it was */
	bool huge_is;
} known = {.frames = -1};

bool zeros_use(void)
{
	if (known.users++ == 0) {
		known.frames = open("/proc/kpageflags", O_RDONLY | O_CLOEXEC);
		known.small = small_frame();
		if (known.frames >= 0 && !(known.small && is_of_zeros(known.frames, known.small))) {
			close(known.frames);
			known.frames = -1;
		}
	}
	return known.frames >= 0;
}

void zeros_leave(void)
{
	if (--known.users == 0 && known.frames >= 0) {
		close(known.frames);
		known.frames = -1;
	}
}

void zeros_forget(void)
{
	known.huge = 0;
}

bool zeros_is(uint64_t addr, uint64_t word)
{
	uint64_t frame = FRAME(word), huge = frame & ~IN_HUGE;

	if (!frame || known.frames < 0)
		return false;
	if (frame == known.small)
		return true;
	if (((addr / PAGE) ^ frame) & IN_HUGE) /* not as a huge page is mapped */
		return false;
	if (huge != known.huge) {
		known.huge = huge;
		known.huge_is = is_of_zeros(known.frames, huge);
	}
	return huge && known.huge_is;
}
