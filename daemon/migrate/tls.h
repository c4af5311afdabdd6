/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* TLS 1.3 with certificates on both sides, and the relay behind which it looks like a plain socket:
 * docs/trust.md. */
#include <sys/types.h>

#include "migrate/keys.h"

#define TLS_HANDSHAKE_SECS 10

struct tls_peer {
	char fingerprint[FINGERPRINT_SIZE];
	bool by_ca; /* its certificate is signed by ca.pem (and names the host we connected to) */
};

/* Shake hands over a connected, blocking TCP socket, within TLS_HANDSHAKE_SECS. Any key is accepted: who it
 * is comes back in @peer, what it may do is the caller's question. @host: whom we connect to; NULL: we are
 * the server. */
int tls_handshake(int tcp, const struct keys *k, const char *host, SSL **ret, struct tls_peer *peer,
		  struct error *e);
/* Hand the connection to a relay process. Takes over @ssl and @tcp, also on failure. Returns a plain,
 * blocking stream socket; closing it ends the connection in order, and then the relay, which is a child of
 * the caller. */
int tls_relay(SSL *ssl, int tcp, pid_t *ret_relay, struct error *e);
/* End of a connection that needs no relay. */
void tls_close(SSL *ssl);
