/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Where "ferry lazy-pages" has its pages from. */
#include "migrate/link.h"
#include "migrate/peer.h"

struct lazy_from {
	char *uuid;     /* of the image */
	const char *to; /* a page server, as for link_connect; NULL: the image itself has them */
	struct link_options link;
	int dirfd;       /* of the image */
	pid_t reader[2]; /* a process for each lane: one that reads, or a relay of TLS; 0: none */
};

/* For struct fetch_options. */
int lazy_dial(void *ctx, int lane, struct peer *ret, struct error *e);
/* Wait for the processes that read. */
void lazy_from_end(struct lazy_from *f);
