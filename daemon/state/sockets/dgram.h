/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* What all sockets without a connection have beyond addresses: groups, halves that are shut down
 * (m->socket->dgram). */
#include "state/sockets/inet.h"

/* Source. @peer: len 0 for none. Refuses a datagram that is half written. */
int dgram_capture_more(const struct fd_facts *f, FileDescription *m, const union inet_address *local,
		       const ProtobufCBinaryData *peer, struct error *e);
/* Destination, connected. */
int dgram_rebuild_more(int fd, const FileDescription *m, struct error *e);
