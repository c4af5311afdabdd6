/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include <linux/userfaultfd.h>

#include "pages.h"
#include "target_uffd.h"

/* Newer than the headers of older distributions. */
#ifndef UFFD_FEATURE_WP_UNPOPULATED
#define UFFD_FEATURE_WP_UNPOPULATED (1 << 13)
#endif
#ifndef UFFD_FEATURE_WP_ASYNC
#define UFFD_FEATURE_WP_ASYNC (1 << 15)
#endif

/* UFFDIO_API with what asynchronous tracking needs, and @more features. 0 or -errno. */
int uffd_handshake(int uffd, uint64_t more);
/* UFFDIO_REGISTER for write protection. 0 or -errno. */
int uffd_register(int uffd, uint64_t start, uint64_t end);
/* As if it had not been. */
void uffd_unregister(int uffd, uint64_t start, uint64_t end);
/* Take off protection, and the markers of it. Not asked whose it is: only for what a scan has just told. 0 or
 * -errno. */
int uffd_unprotect(int uffd, uint64_t start, uint64_t end);
/* Protect again what was written; @each is told. One VMA per call: where the scan meets one that is not
 * tracked it fails with -EPERM, and what it protected before that is not told. */
int uffd_arm(int pagemap, uint64_t start, uint64_t end, scan_each each, void *ctx);
/* What is not protected, the fast way: holes and dropped pages too. */
int uffd_written(int pagemap, uint64_t start, uint64_t end, scan_each each, void *ctx);

struct uffd_kernel {
	bool complete; /* its quick scan can miss dropped anonymous memory, so that the final answer must be
			  made from what is populated */
	bool guards;   /* it installs guards in maps of files */
};
/* Does this kernel do asynchronous write protection for this caller? 0, or -errno with a reason. */
int uffd_probe(struct uffd_kernel *ret, char *why, size_t why_size);

/* May a thread of the stopped target have a store to try again? Not in a system call: there it is tried again
 * at once. */
bool target_outside_call(pid_t pid);

/* The VMAs that end and begin where @v begins and ends. False: @v is not exactly one VMA; then @merged says
 * that it is part of one that is larger. A kernel that cannot tell (before 6.11) answers that all is well. */
struct borders {
	uint64_t below_start, above_end;
	bool merged;
};
bool target_borders(int maps, const struct dirty_vma *v, struct borders *ret);

/* A userfaultfd that tells of mappings that are moved or doubled (UFFD_FEATURE_EVENT_REMAP) and of pages that
 * are taken away (UFFD_FEATURE_EVENT_REMOVE): read from begin to end by a thread (events.c). */
struct uffd_events {
	int fd; /* set by the caller; stays open till the end */
	bool moved, removed;
	struct uffd_events *next;
};
int events_begin(struct uffd_events *w);
void events_end(struct uffd_events *w);
/* Has nothing been moved since the last call, and nothing been taken away ever? */
bool events_none(struct uffd_events *w);
/* Were pages taken away at any time (or may have been)? */
bool events_removed(struct uffd_events *w);

/* Where the file behind @v, shared memory, has data: [start, end) in the process. 0, what @each returned, or
 * -errno. */
int target_data(pid_t pid, int maps, const struct dirty_vma *v,
		int (*each)(void *ctx, uint64_t start, uint64_t end), void *ctx);
