/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* A connection to another ferry, plain or encrypted, to one that may do what it is for: docs/trust.md. */
#include <sys/types.h>

#include "migrate/keys.h"

#define FERRY_PORT        "7471"
#define LINK_CONNECT_SECS 10

/* PEM files in the place of a keys directory: whoever has a certificate of that authority may, and nobody
 * else. */
struct link_files {
	const char *ca, *certificate, *key; /* all, or NULL: the keys directory */
	bool any_name;                      /* the name in the server's certificate does not matter */
};

struct link_options {
	const char *keys_dir; /* NULL: KEYS_DIR */
	bool tls;             /* also over loopback */
	struct link_files files;
	bool insecure;       /* plain TCP also beyond loopback */
	unsigned connect_ms; /* the longest wait for a connection; 0: LINK_CONNECT_SECS */
};

struct link {
	int sock; /* stream socket, blocking; plain bytes */
	pid_t relay;
	bool encrypted, beyond; /* TLS; not loopback */
	char fingerprint[FINGERPRINT_SIZE];
};
#define LINK_INIT          \
	{                  \
		.sock = -1 \
	}

/* Connect to HOST, HOST:PORT or [v6]:PORT; @need: the grants that peer must have here. */
int link_connect(const char *to, const struct link_options *o, unsigned need, struct link *ret,
		 struct error *e);
/* The other end: @sock is the accepted TCP socket, taken over. -EACCES when the peer may not do @need: then
 * *ret is open all the same, so that it can be told. */
int link_accept(int sock, const struct link_options *o, unsigned need, struct link *ret, struct error *e);
/* The key of the host at @to, without trusting it: for "ferry keys trust". */
int link_fetch_key(const char *to, const struct link_options *o, char ret[FINGERPRINT_SIZE], struct error *e);
void link_close(struct link *l);
