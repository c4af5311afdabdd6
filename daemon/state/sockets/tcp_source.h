/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Between tcp_capture.c and tcp_hold.c. */
#include "state/sockets/tcp.h"

enum { /* tcpi_state; enum of <netinet/tcp.h>, which cannot stand beside <linux/tcp.h> */
       TCP_STATE_ESTABLISHED = 1,
       TCP_STATE_FIN_WAIT1 = 4,
       TCP_STATE_FIN_WAIT2 = 5,
       TCP_STATE_CLOSE = 7,
       TCP_STATE_CLOSE_WAIT = 8,
       TCP_STATE_LAST_ACK = 9,
       TCP_STATE_LISTEN = 10,
       TCP_STATE_CLOSING = 11,
};

bool tcp_is_connected(const struct tcp_info *i);
/* Options that are numbers. -1: cannot be read. */
int tcp_get(int fd, int level, int name);
void tcp_set(int fd, int level, int name, int v);
/* Name of the kept table that goes into the image. */
int tcp_source_name(struct capture *c, const char **ret, struct error *e);
/* Hold back packets of this connection, unless it is done already. */
int tcp_hold_one(struct capture *c, struct fd_facts *f, const union inet_address *local,
		 const union inet_address *peer, struct error *e);
/* Hold back requests to this listener, of which @copy is a copy. */
int tcp_hold_listener(struct capture *c, const struct ofd *o, int copy, struct error *e);
