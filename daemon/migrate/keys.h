/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* The host key and the peers this host trusts: docs/trust.md. */
#include <stdbool.h>
#include <openssl/ssl.h>

#include "base/error.h"

#define KEYS_DIR         "/etc/ferry/keys"
#define FINGERPRINT_SIZE 56 /* "SHA256:", 43 characters, NUL, rounded up */

enum grant {
	GRANT_SEND = 1 << 0,
	GRANT_RECEIVE = 1 << 1,
	GRANT_PAGE_SERVE = 1 << 2,
};
#define GRANT_DEFAULT (GRANT_SEND | GRANT_RECEIVE)
#define GRANT_ALL     (GRANT_SEND | GRANT_RECEIVE | GRANT_PAGE_SERVE)

/* "send,receive" to bits. Unknown names are an error that lists the known ones. */
int grants_parse(const char *text, unsigned *ret, struct error *e);
/* malloc'ed */
char *grants_text(unsigned grants);

struct known_peer {
	char *name;
	char fingerprint[FINGERPRINT_SIZE];
	unsigned grants;
};

struct keys {
	EVP_PKEY *key;
	X509 *certificate;
	X509_STORE *ca; /* NULL: no ca.pem */
	bool any_name;  /* a certificate signed by it is good for any host */
	char fingerprint[FINGERPRINT_SIZE];
	struct known_peer *peers;
	size_t n_peers;
};

/* Make DIR, the key and its certificate. -EEXIST when there is one. */
int keys_init(const char *dir, struct error *e);
/* -ENOENT: no key yet. Refuses a private key that others may read. */
int keys_load(const char *dir, struct keys **ret, struct error *e);
/* The same from PEM files, without peers; @ca may be NULL. */
int keys_load_files(const char *key, const char *certificate, const char *ca, struct keys **ret,
		    struct error *e);
void keys_free(struct keys *k);
/* Put a peer into known_peers (in place of the one of that name) or take it out (-ENOENT: not there). The
 * file is replaced as a whole. */
int keys_trust(const char *dir, const struct known_peer *p, struct error *e);
int keys_forget(const char *dir, const char *name, struct error *e);
/* Lines of known_peers. malloc'ed. A file that is not there is empty. */
int known_peers_read(const char *dir, struct known_peer **ret, size_t *ret_n, struct error *e);
/* The same for text in memory (changed by the call); @path for errors. */
int known_peers_parse(char *text, const char *path, struct known_peer **ret, size_t *ret_n, struct error *e);
void known_peers_free(struct known_peer *p, size_t n);
const struct known_peer *keys_by_name(const struct keys *k, const char *name);
/* All grants of the lines with this fingerprint. 0: not known. */
unsigned keys_by_fingerprint(const struct keys *k, const char *fingerprint);
bool fingerprint_ok(const char *text);
/* Of a certificate's public key. */
int fingerprint_of(X509 *x, char ret[FINGERPRINT_SIZE], struct error *e);
/* What OpenSSL says went wrong, appended to @what. -@code. */
int error_ssl(struct error *e, int code, const char *what);
