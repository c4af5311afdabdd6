/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Which pages are still missing where, while a program runs whose memory has not all arrived:
 * docs/post-copy.md. Books only: nothing here makes a system call.
 *
 * A *source* is the memory of one process of the frozen original; the pages that were left there are numbered
 * in ascending order of their addresses (*marks*).  A *space* is the memory of one running process, in which
 * some of the marks of one source are missing: at the beginning there is one for each source, at the same
 * addresses; forks make more, mremap moves, munmap and madvise give pages up.
 *
 * Shared memory is missing as such: an *object* is a space, too, whose addresses are offsets, and a page that
 * came is there for all who map it. Where running processes map it is in their spaces (*views*).
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/page_set.h"

struct missing_source {
	pid_t pid;
	struct page_set base; /* addresses, in order of their marks */
	uint64_t *first;      /* mark of the first page of each range of it */
	uint64_t n;           /* marks */
	uint64_t *todo;       /* bit per mark: wanted by a space, and not asked for */
	uint64_t *urgent;     /* asked for because of a fault */
	uint64_t *wanted;     /* missing in at least one space */
	uint64_t left;        /* of those */
	uint64_t hint;        /* last fault */
};

struct missing_range {
	uint64_t start, end; /* addresses in the space */
	uint64_t mark;       /* of the page at @start; the others follow */
};

/* [start, end) of a process maps an object from @offset on. Growth in place is not told, nor how long a
 * second mapping is (mremap from length 0): it may reach further. */
struct missing_view {
	uint64_t start, end, offset;
	uint64_t object; /* number in the pager's list */
};

#define MISSING_PROCESS (-1)

struct missing_space {
	int fd;         /* userfaultfd of a process; -1: none, or of an object */
	int64_t object; /* number of the object that it is a part of, or MISSING_PROCESS */
	size_t source;
	bool ended;              /* there is no such memory any more */
	bool moved;              /* addresses are not those of the source */
	struct missing_range *r; /* by address; what was given up as a whole may still be in it */
	size_t n, cap;
	uint64_t *bits;             /* per mark: missing here */
	struct page_set registered; /* where faults are reported; not what has grown since */
	struct missing_view *views; /* shared memory of which pages are, or were, missing */
	size_t n_views;
	struct page_set huge; /* was made of transparent huge pages, and shall be again */
};

struct missing {
	struct missing_source *sources;
	size_t n_sources;
	struct missing_space *spaces;
	size_t n_spaces;
};
#define MISSING_INIT \
	{            \
		0    \
	}

void missing_deinit(struct missing *m);
/* Pages left with @pid of the original; @pages is copied. Returns its number. */
size_t missing_add_source(struct missing *m, pid_t pid, const struct page_set *pages);
/* The space of a source, at the same addresses; @registered is copied. */
size_t missing_add_space(struct missing *m, size_t source, int fd, const struct page_set *registered);
/* Any space, as it was written down. @bits: as many as the source has marks. */
size_t missing_add_space_as(struct missing *m, size_t source, int fd, const struct missing_range *r, size_t n,
			    const uint64_t *bits, const struct page_set *registered);

/* A part of an object: @r in ascending order both of offsets and of marks, @bits as above. */
size_t missing_add_object(struct missing *m, size_t source, uint64_t object, const struct missing_range *r,
			  size_t n, const uint64_t *bits);
void missing_add_view(struct missing *m, size_t space, const struct missing_view *v);
/* The view that has @addr, or the last one below it; NULL: there is none. */
struct missing_view *missing_view_near(const struct missing *m, size_t space, uint64_t addr);
/* It was found to reach to @end. */
void missing_view_reaches(struct missing *m, size_t space, struct missing_view *v, uint64_t end);
/* Is the page at @offset of @object missing? */
bool missing_find_shared(const struct missing *m, uint64_t object, uint64_t offset, size_t *ret_space,
			 uint64_t *ret_mark);
/* How many bytes from @offset on, at most @max, have no missing page; @offset's own has none. */
uint64_t missing_none_in(const struct missing *m, uint64_t object, uint64_t offset, uint64_t max);
/* What of @space is to be made of huge pages when all is there; @set is copied. A fork's child has none. */
void missing_set_huge(struct missing *m, size_t space, const struct page_set *set);

/* --- what programs do ------------------------------------------------------------------------------ */
size_t missing_fork(struct missing *m, size_t space, int fd);
/* Given back: nothing of the source is wanted there any more. */
void missing_drop(struct missing *m, size_t space, uint64_t start, uint64_t end);
void missing_unmap(struct missing *m, size_t space, uint64_t start, uint64_t end);
/* @stays: the mapping is at the old place, too, as before where it is shared, empty where it is private
 * (MREMAP_DONTUNMAP). @length 0: a second mapping of shared memory. */
void missing_move(struct missing *m, size_t space, uint64_t from, uint64_t to, uint64_t length, bool stays);
void missing_end(struct missing *m, size_t space);

/* --- what is fetched ------------------------------------------------------------------------------- */
/* Is the page at @addr missing? */
bool missing_find(const struct missing *m, size_t space, uint64_t addr, uint64_t *ret_mark);
/* Where a mark is missing in @space; false: it is not. */
bool missing_where(const struct missing *m, size_t space, uint64_t mark, uint64_t *ret_addr);
/* Its address in the original, and back (false: no such mark). */
uint64_t missing_address(const struct missing *m, size_t source, uint64_t mark);
bool missing_mark(const struct missing *m, size_t source, uint64_t addr, uint64_t *ret_mark);
/* Pages to be asked for next, at most @max, one behind the other at the source, near the last fault. 0: all
 * that are missing have been asked for. They count as asked for. */
size_t missing_next(struct missing *m, size_t source, size_t max, uint64_t *ret_mark);
/* A thread waits for it: true if it has not been asked for urgently yet. */
bool missing_urge(struct missing *m, size_t source, uint64_t mark);
/* It could not be asked for after all. */
void missing_calm(struct missing *m, size_t source, uint64_t mark);
/* It is there now, wherever it was missing. */
void missing_arrived(struct missing *m, size_t source, uint64_t mark);
/* What was asked for and did not come is to be asked for again: all of it, or what was urgent. */
void missing_ask_again(struct missing *m);
/* Pages that are missing somewhere. */
uint64_t missing_left(const struct missing *m);

#define MISSING_WORDS(n) (((n) + 63) / 64)
static inline bool missing_bit(const uint64_t *bits, uint64_t i)
{
	return bits[i / 64] >> (i % 64) & 1;
}
