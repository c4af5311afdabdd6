/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading many small ranges at once.
 *
 * Random writes leave pages far from each other, and a pread(2) of /proc/PID/mem for each costs several times
 * what copying it does.  process_vm_readv(2) takes many at a time, at less than half the cost (measured: 2.5
 * against 6.2 us for a page not in the cache, 1.2 against 2.5 us for one that is).  Two things are different:
 *
 * It goes by pid, not by the memory that was opened.  A pid that still belongs to the process afterwards did
 * so all the time; and if the process has exec'ed, what was read of the new memory is void with all else
 * that was sent of the old one.
 *
 * It pins a page, and a page that is shared copy-on-write is unshared for that.  So it is used where a tree
 * has one process only, and for what was written: such a page is its own but for a fork since.
 *
 * What it cannot read (guard regions, PROT_NONE: it does not force as /proc/PID/mem does) is left to
 * memory_read.
 */
#include <poll.h>
#include <sys/uio.h>

#include "base/util.h"
#include "state/memory/memory.h"

#define MOST  64          /* ranges: the kernel copies the list, up to 8 on its stack */
#define SMALL (64u << 10) /* bytes: longer ranges are cheap to read one by one */

static bool has_ended(const struct memory_process *mp)
{
	struct pollfd p = {.fd = mp->pidfd, .events = POLLIN};

	return mp->pidfd < 0 || poll(&p, 1, 0) != 0;
}

size_t memory_gather(const struct memory *m, const struct memory_process *mp, const struct page_range *r,
		     size_t n)
{
	struct iovec remote[MOST], local = {.iov_base = m->buffer};
	size_t k = 0, whole = 0;

	if (!m->one_process || mp->swapped)
		return 0;
	for (; k < n && k < MOST && r[k].end - r[k].start <= SMALL; k++) {
		remote[k] = (struct iovec){(void *)r[k].start, r[k].end - r[k].start};
		if (local.iov_len + remote[k].iov_len > STREAM_MAX_RUN)
			break;
		local.iov_len += remote[k].iov_len;
	}
	if (k < 2)
		return 0;
	ssize_t got = process_vm_readv(mp->living, &local, 1, remote, k, 0);

	while (whole < k && got >= (ssize_t)remote[whole].iov_len)
		got -= (ssize_t)remote[whole++].iov_len;
	return has_ended(mp) ? 0 : whole;
}
