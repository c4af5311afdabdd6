/* SPDX-License-Identifier: Apache-2.0 */
#include "migrate/link.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "base/net.h"
#include "base/util.h"
#include "migrate/tls.h"

#define TLS_FIRST_BYTE 0x16 /* a handshake record, RFC 8446 */

static const char *keys_dir(const struct link_options *o)
{
	return o->keys_dir ? o->keys_dir : KEYS_DIR;
}

/* A peer whose machine is gone is noticed after a quarter of a minute, also in silence. */
static void keep_alive(int sock)
{
	static const struct {
		int level, name, value;
	} all[] = {{IPPROTO_TCP, TCP_NODELAY, 1},  {SOL_SOCKET, SO_KEEPALIVE, 1},
		   {IPPROTO_TCP, TCP_KEEPIDLE, 5}, {IPPROTO_TCP, TCP_KEEPINTVL, 2},
		   {IPPROTO_TCP, TCP_KEEPCNT, 5},  {IPPROTO_TCP, TCP_USER_TIMEOUT, 15000}};

	/* Comforts only: a socket without them still works. */
	for (size_t i = 0; i < ARRAY_SIZE(all); i++)
		setsockopt(sock, all[i].level, all[i].name, &all[i].value, sizeof(all[i].value));
}

static int dial(const char *to, unsigned connect_ms, char **ret_host, struct error *e)
{
	cleanup_free char *port = NULL;
	int r = net_split(to, NULL, FERRY_PORT, ret_host, &port, e);

	if (r >= 0 && !*ret_host)
		r = error_say(e, EINVAL, "address %s: no host", to);
	if (r >= 0 && !strcmp(port, "0"))
		r = error_say(e, EINVAL, "\"0\" is not a port number to connect to");
	if (r >= 0)
		r = net_connect(*ret_host, port, connect_ms ? connect_ms : LINK_CONNECT_SECS * 1000, e);
	return r;
}

static int check_key(const struct keys *k, const char *host, const struct tls_peer *p, unsigned need,
		     struct error *e)
{
	const struct known_peer *known = host ? keys_by_name(k, host) : NULL, *ca = keys_by_name(k, "@ca");
	unsigned grants = host ? (known && !strcmp(known->fingerprint, p->fingerprint) ? known->grants : 0)
			       : keys_by_fingerprint(k, p->fingerprint);
	cleanup_free char *needed = grants_text(need);

	if (known && !grants)
		return error_say(e, EACCES,
				 "the key of %s has changed: it shows %s, known is %s; if that is right, say "
				 "\"ferry keys trust %s\" again",
				 host, p->fingerprint, known->fingerprint, host);
	if (!grants && p->by_ca && ca)
		grants = ca->grants;
	if (!grants && host)
		return error_say(e, EACCES, "the key of %s, %s, is not known here: \"ferry keys trust %s\"",
				 host, p->fingerprint, host);
	if (!grants)
		return error_say(e, EACCES, "the peer's key %s is not known here (ferry keys trust)",
				 p->fingerprint);
	if ((grants & need) != need)
		return error_say(e, EACCES, "the peer with the key %s is not granted \"%s\" here",
				 p->fingerprint, needed);
	return 0;
}

static int load_keys(const struct link_options *o, struct keys **ret, struct error *e)
{
	const struct link_files *f = &o->files;

	if (!f->key)
		return keys_load(keys_dir(o), ret, e);
	int r = keys_load_files(f->key, f->certificate, f->ca, ret, e);

	if (r >= 0)
		(*ret)->any_name = f->any_name;
	return r;
}

static int check_peer(const struct link_options *o, const struct keys *k, const char *host,
		      const struct tls_peer *p, unsigned need, struct error *e)
{
	if (!o->files.key)
		return check_key(k, host, p, need, e);
	if (p->by_ca)
		return 0;
	return error_say(e, EACCES, "the certificate of %s is not signed by %s%s", host ? host : "the peer",
			 o->files.ca, host && !o->files.any_name ? ", or is for another name" : "");
}

/* TLS over @tcp (taken over). With -EACCES the link is open. */
static int encrypt(int tcp, const struct link_options *o, const char *host, unsigned need, struct link *ret,
		   struct error *e)
{
	struct tls_peer peer = {0};
	struct error verdict = ERROR_INIT;
	struct keys *k = NULL;
	SSL *ssl = NULL;
	int r = load_keys(o, &k, e), v = 0;

	if (r >= 0)
		r = tls_handshake(tcp, k, host, &ssl, &peer, e);
	if (r >= 0)
		v = check_peer(o, k, host, &peer, need, &verdict);
	keys_free(k);
	if (r < 0) {
		close(tcp);
		return r;
	}
	memcpy(ret->fingerprint, peer.fingerprint, sizeof(ret->fingerprint));
	ret->encrypted = true;
	if (v < 0 && host) { /* nothing to tell a server that we do not trust */
		tls_close(ssl);
		close(tcp);
	} else {
		r = tls_relay(ssl, tcp, &ret->relay, e);
		if (r < 0)
			return r;
		ret->sock = r;
	}
	if (v < 0)
		return error_say(e, EACCES, "%s", verdict.text);
	return 0;
}

int link_connect(const char *to, const struct link_options *o, unsigned need, struct link *ret,
		 struct error *e)
{
	cleanup_free char *host = NULL;
	int sock = dial(to, o->connect_ms, &host, e);

	*ret = (struct link)LINK_INIT;
	if (sock < 0)
		return sock;
	keep_alive(sock);
	ret->beyond = !net_is_loopback(sock);
	if (!o->tls && (!ret->beyond || o->insecure)) {
		ret->sock = sock;
		return 0;
	}
	int r = encrypt(sock, o, host, need, ret, e);

	if (r == -ENOENT)
		return error_prefix(e, "%s is another machine, and --insecure was not said", to);
	return r < 0 ? error_prefix(e, "%s", to) : 0;
}

int link_accept(int sock, const struct link_options *o, unsigned need, struct link *ret, struct error *e)
{
	const struct timeval soon = {.tv_sec = LINK_CONNECT_SECS}, none = {0};
	uint8_t first = 0;
	ssize_t n;

	*ret = (struct link)LINK_INIT;
	keep_alive(sock);
	/* One that says nothing must not be waited for for ever. */
	setsockopt(sock, SOL_SOCKET, SO_RCVTIMEO, &soon, sizeof(soon));
	do
		n = recv(sock, &first, 1, MSG_PEEK);
	while (n < 0 && errno == EINTR && !job_aborted());
	int code = errno == EAGAIN ? ETIMEDOUT : errno;

	setsockopt(sock, SOL_SOCKET, SO_RCVTIMEO, &none, sizeof(none));
	if (n <= 0) {
		close(sock);
		return n ? error_set(e, code, "the peer's first byte")
			 : error_say(e, EPIPE, "the peer ended the connection without a word");
	}
	ret->beyond = !net_is_loopback(sock);
	if (first == TLS_FIRST_BYTE)
		return encrypt(sock, o, NULL, need, ret, e);
	ret->sock = sock;
	if (o->tls)
		return error_say(e, EACCES, "the peer does not encrypt, and --tls was said");
	return ret->beyond && !o->insecure ? error_say(e, EACCES,
						       "the peer does not encrypt: that is accepted from "
						       "loopback, or with --insecure")
					   : 0;
}

int link_fetch_key(const char *to, const struct link_options *o, char ret[FINGERPRINT_SIZE], struct error *e)
{
	cleanup_free char *host = NULL;
	cleanup_close int sock = dial(to, o->connect_ms, &host, e);
	struct tls_peer peer = {0};
	struct keys *k = NULL;
	SSL *ssl = NULL;

	if (sock < 0)
		return sock;
	int r = keys_load(keys_dir(o), &k, e);

	if (r >= 0)
		r = tls_handshake(sock, k, host, &ssl, &peer, e);
	keys_free(k);
	tls_close(ssl);
	if (r < 0)
		return error_prefix(e, "%s", to);
	memcpy(ret, peer.fingerprint, FINGERPRINT_SIZE);
	return 0;
}

void link_close(struct link *l)
{
	if (l->sock >= 0)
		close(l->sock);
	l->sock = -1;
	if (l->relay > 0)
		while (waitpid(l->relay, NULL, 0) < 0 && errno == EINTR)
			;
	l->relay = 0;
}
