/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Packets that were held back (hold.h), to be handed in where the connection is by then: docs/tcp.md.  None
 * of this is needed for a connection to survive: a packet that is not handed in is sent again by the peer.
 */
#include <protobuf-c/protobuf-c.h>

#include "state/sockets/hold.h"

struct packets;

/* Where a hold can leave copies of what it drops: *ret_group, for hold_new(). */
int packets_open(struct packets **ret, uint16_t *ret_group, struct error *e);
void packets_free(struct packets *p);
/* What has come since the last time, appended; each malloc'ed, as is the list. */
void packets_take(struct packets *p, ProtobufCBinaryData **list, size_t *n);

/* Where the connections go on: hand in those that belong to one of @v, with @raw. Returns how many. */
struct packets_raw {
	int v4, v6; /* -1: not made yet */
};
#define PACKETS_RAW_INIT \
	{                \
		-1, -1   \
	}
size_t packets_put(struct packets_raw *raw, const ProtobufCBinaryData *list, size_t n,
		   const struct hold_tuple *v, size_t n_v);
void packets_raw_close(struct packets_raw *raw);
