/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* From one connection to several, after the HELLOs: docs/migration-protocol.md, "Several connections". */
#include "migrate/link.h"
#include "migrate/peer.h"

/* Source: dial until there are @n. @link and @p then are those of all of them. */
int join_dial(struct link *link, struct peer *p, unsigned n, const char *to, const struct link_options *o,
	      const char *uuid, struct error *e);
/* Destination, before its HELLO goes out: a listening socket for the processes that get the others. */
int join_listen(const char *dir, const char *uuid, struct error *e);
/* What a process leaves behind that is killed while it waits. */
void join_forget(const char *dir, const char *uuid);
/* Destination, afterwards: wait for the others. @listener is closed. */
int join_wait(struct link *link, struct peer *p, unsigned n, const char *dir, const char *uuid, int listener,
	      struct error *e);
/* Destination, one of the others: the connection goes to the process that waits for it. */
int join_give(struct link *link, const char *dir, const char *uuid, unsigned index, struct error *e);
