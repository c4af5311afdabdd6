/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Packets of connections that are between two places are dropped, in both directions: docs/tcp.md.
 *
 * A hold is a table of nf_tables in the network namespace of the caller.  One that is `owned` goes with the
 * process that made it, however that ends; one that is kept stays until somebody removes it by its name.
 */
#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

/* One end of a connection, as its packets have it: an IPv4 address also when the socket is one of IPv6. Or a
 * listener (peer_port 0, address 0: any), of which only requests for new connections are meant. */
struct hold_tuple {
	bool six;
	struct in6_addr local, peer;    /* IPv4: in the first four bytes */
	uint16_t local_port, peer_port; /* network byte order */
};

struct hold;

/* An owned one that drops nothing yet. @group: of nfnetlink_log, gets a copy of each incoming packet that is
 * dropped; 0: none. */
int hold_new(struct hold **ret, const char *name, uint16_t group, struct error *e);
/* Drop what belongs to these, too. In effect when this returns. */
int hold_add(struct hold *h, const struct hold_tuple *v, size_t n, struct error *e);
/* Drop nothing any more. */
int hold_clear(struct hold *h, struct error *e);
/* NULL-safe. An owned one is gone. */
void hold_free(struct hold *h);

/* A kept one, for all of these; and remove one, 0 too when there is none of that name. By the socket of @h,
 * so that nobody has to wait for the end of another. */
int hold_keep(const struct hold *h, const char *name, const struct hold_tuple *v, size_t n, struct error *e);
int hold_remove_kept(const struct hold *h, const char *name, struct error *e);
/* The same by who has none. */
int hold_remove(const char *name, struct error *e);
