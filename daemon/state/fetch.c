/* SPDX-License-Identifier: Apache-2.0 */
#include "state/fetch.h"

#include <sys/syscall.h>
#include <unistd.h>

#include "state/kind.h"

/* Told apart by their addresses. */
static const char opening[] = "open the pidfd of the host";
static const char closing[] = "close the pidfd of the host";

/* Entry that opened the pidfd and after which none closed it, or -1. */
static long find_open(const struct batch *b)
{
	for (size_t i = b->n; i-- > 0;) {
		if (b->labels[i] == closing)
			return -1;
		if (b->labels[i] == opening)
			return i;
	}
	return -1;
}

unsigned rebuild_fetch_begin(struct batch *b)
{
	long i = find_open(b);

	return i >= 0 ? (unsigned)i : batch_call(b, opening, SYS_pidfd_open, ARG(getpid()), ARG(0));
}

void rebuild_fetch_end(struct batch *b)
{
	long i = find_open(b);

	if (i >= 0)
		batch_call(b, closing, SYS_close, ARG_RESULT(i));
}

void rebuild_fetch_forget(struct batch *b, unsigned entry)
{
	b->labels[entry] = "open the pidfd of the host (closed again)";
}

unsigned rebuild_fetch_fd(struct batch *b, int host_fd)
{
	unsigned pidfd = rebuild_fetch_begin(b);

	return batch_call(b, "fetch a descriptor of the host", SYS_pidfd_getfd, ARG_RESULT(pidfd),
			  ARG(host_fd), ARG(0));
}
