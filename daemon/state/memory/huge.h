/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Transparent huge pages: remembered at the source, made again here and there. All ranges are whole huge
 * pages. */
#include "procfs/procfs.h"
#include "state/memory/memory.h"

/* Source, target running: what huge pages map now goes into @mp->huge. @maps: as read with flags. */
int huge_note(struct memory_process *mp, const struct proc_maps *maps);
/* Pages of @dropped are not there any more: the huge pages they were part of will not be made again. */
void huge_forget(struct page_set *huge, const struct page_set *dropped);
/* The same at the source; what the other side made with such a huge page, also where no content was sent, is
 * added to @ret. */
void huge_drop(struct page_set *huge, const struct page_set *dropped, struct page_set *ret);
/* What of @mp->huge is still private anonymous memory of @mm, into @mm. */
void huge_put(struct memory_process *mp, Ferry__Mm *mm);
/* After tracking: what it split is collapsed again, from outside, on a running or stopped target. What has
 * holes, or is shared since a fork, is left alone. */
void huge_repair(const struct memory_process *mp, int pidfd);

/* Destination: back [@start, @end) by huge pages, whether it is empty or has (private) pages already. Returns
 * how many could not be had: the kernel may have none left. */
size_t huge_make(int pidfd, int mem_fd, int pagemap_fd, uint64_t start, uint64_t end);
