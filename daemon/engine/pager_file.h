/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* The state of a pager as it lies in its file, mapped by the process at work. Read by the same program only.
 */
#include <assert.h>

#include "engine/pager.h"

#define PAGER_MAGIC   0x7265676170797266ull /* "frypager" */
#define PAGER_VERSION 5u
#define PAGER_LOG     1024u /* events of the programs; then the file is written anew */

/* An event that moves, copies or gives up what is missing, exactly as the kernel wrote it: it is read from
 * the userfaultfd right into its place here, so that there is no moment in which it is read and not written
 * down. */
struct pager_event {
	uint32_t space;
	uint32_t applied;    /* 1: no event; all of that space before it are in the books */
	struct uffd_msg msg; /* event 0: none yet */
};

struct pager_header {
	uint64_t magic;
	uint32_t version;
	uint32_t finished;
	int32_t holder;
	uint32_t n_log;
	uint64_t holder_start, total;
	uint64_t n_objects, n_sources, n_spaces;
	uint64_t size;
	uint64_t log_at; /* offset */
};

struct pager_shared {
	int64_t fd; /* number in the holder's table */
	uint64_t size;
};

struct pager_source {
	int64_t pid;
	uint64_t n_base, n; /* struct page_range; then the bits of what has been placed: MISSING_WORDS(n) */
};

struct pager_space {
	int64_t fd;     /* number in the holder's table */
	int64_t object; /* MISSING_PROCESS: none */
	uint64_t source;
	uint64_t n_views;      /* struct missing_view */
	uint64_t n_ranges;     /* struct missing_range */
	uint64_t n_registered; /* struct page_range */
	uint64_t n_huge;       /* struct page_range; then bits: MISSING_WORDS(n of the source) */
};

struct pager_file {
	struct pager_header h;
	uint64_t rest[]; /* objects, sources, spaces */
};
static_assert(sizeof(struct pager_header) % 8 == 0, "words follow");

/* Where a source's bits of placed pages are. */
uint64_t *pager_file_placed(struct pager_file *f, size_t source);
struct pager_event *pager_file_log(struct pager_file *f);
/* The memory of a space is gone: its descriptor is nobody's any more, whether it is in the file itself or
 * came with a fork since. */
void pager_file_ended(struct pager_file *f, size_t space);
