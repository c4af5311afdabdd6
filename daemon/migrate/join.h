/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * From one connection to several, after the HELLOs: docs/migration-protocol.md, "Several connections".
 * Whose a further one is, is told by a secret that only the source has heard, and over TLS by its key.
 */
#include "base/events.h"
#include "migrate/link.h"
#include "migrate/peer.h"

/* Source: dial until there are @n. @link and @p then are those of all of them. */
int join_dial(struct link *link, struct peer *p, unsigned n, const char *to, const struct link_options *o,
	      const char *uuid, const ProtobufCBinaryData *secret, struct error *e);
/* Destination, before its HELLO goes out: a listening socket for the processes that get the others. */
#define JOIN_SECRET 16
int join_listen(const char *dir, const char *uuid, uint8_t ret_secret[JOIN_SECRET], struct error *e);
/* What a process leaves behind that is killed while it waits. */
void join_forget(const char *dir, const char *uuid);
/* Destination, afterwards: wait for the others; those of somebody else are turned away. @listener is closed.
 */
int join_wait(struct link *link, struct peer *p, unsigned n, const char *dir, const char *uuid, int listener,
	      const uint8_t *secret, const struct events *ev, struct error *e);
/* Destination, one of the others: the connection goes to the process that waits for it. */
int join_give(struct link *link, const char *dir, const Ferry__PeerJoin *join, struct error *e);
