/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* One end of a connection between a source and a destination. */
#include <stdbool.h>
#include <sys/types.h>

#include "base/error.h"
#include "proto/image.pb-c.h"
#include "proto/peer.pb-c.h"
#include "stream/stream.h"

#define PEER_VERSION    1u
#define PEER_HELLO_SECS 10

/* Silence while an answer is due: 60. A variable for the sake of tests that cut links. */
extern unsigned peer_silence_secs;

struct peer {
	int sock;
	struct stream_out *out;
	struct stream_in *in;
	bool sent_error, got_error;
};

/* Streams over the socket of a link; it stays the caller's. */
int peer_init(struct peer *p, int sock, struct error *e);
void peer_deinit(struct peer *p);
/* Seconds of silence after which a read fails with -ETIMEDOUT. */
void peer_set_timeout(struct peer *p, unsigned seconds);
/* Send one message and push it out. */
int peer_send(struct peer *p, uint32_t type, const ProtobufCMessage *m, struct error *e);
/* The next record, of whatever type but ERROR, which becomes ours. */
int peer_next(struct peer *p, struct record *ret, struct error *e);
/* Receive exactly this type; an ERROR of the other side becomes ours ("destination: ..."). *ret may be NULL.
 */
int peer_expect(struct peer *p, uint32_t type, const ProtobufCMessageDescriptor *d, ProtobufCMessage **ret,
		struct error *e);
/* Tell the other side why we give up; best effort. */
void peer_send_error(struct peer *p, const struct error *why);
/* After sending failed with @e: if the other side said why it gave up, put that into @e instead. */
void peer_explain(struct peer *p, struct error *e);
/* An ERROR record as ours. */
int peer_take_error(const struct record *rec, struct error *e);
