/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Where "ferry lazy-pages" has its pages from. */
#include "migrate/peer.h"

struct lazy_from {
	char *uuid;              /* of the image */
	const char *host, *port; /* of a page server; NULL: the image itself has them */
	int dirfd;               /* of the image */
	pid_t reader[2];         /* local: a process for each lane */
};

/* For struct fetch_options. */
int lazy_dial(void *ctx, int lane, struct peer *ret, struct error *e);
/* Wait for the processes that read. */
void lazy_from_end(struct lazy_from *f);
