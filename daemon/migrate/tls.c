/* SPDX-License-Identifier: Apache-2.0 */
#include "migrate/tls.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>

#include "base/util.h"

#define BUFFER    65536
#define LINGER_MS 5000 /* after our end is closed: silence of the other side */

/* --- handshake ----------------------------------------------------------------------------------- */

/* Who it is gets looked at afterwards; that it has the key of its certificate TLS itself proves. */
static int accept_any(int ok, X509_STORE_CTX *x)
{
	(void)ok;
	(void)x;
	return 1;
}

static SSL_CTX *context(const struct keys *k, bool server)
{
	SSL_CTX *c = SSL_CTX_new(server ? TLS_server_method() : TLS_client_method());

	if (!c)
		return NULL;
	SSL_CTX_set_min_proto_version(c, TLS1_3_VERSION);
	SSL_CTX_set_verify(c, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, accept_any);
	SSL_CTX_set_session_cache_mode(c, SSL_SESS_CACHE_OFF);
	SSL_CTX_set_num_tickets(c, 0);
	SSL_CTX_set_mode(c, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
	if (SSL_CTX_use_certificate(c, k->certificate) == 1 && SSL_CTX_use_PrivateKey(c, k->key) == 1)
		return c;
	SSL_CTX_free(c);
	return NULL;
}

static bool signed_by_ca(const struct keys *k, SSL *ssl, X509 *x, const char *host)
{
	X509_STORE_CTX *c = k->ca ? X509_STORE_CTX_new() : NULL;
	bool ok = c && X509_STORE_CTX_init(c, k->ca, x, SSL_get_peer_cert_chain(ssl)) == 1 &&
		  X509_STORE_CTX_set_purpose(c, host ? X509_PURPOSE_SSL_SERVER : X509_PURPOSE_SSL_CLIENT) ==
			  1 &&
		  X509_verify_cert(c) == 1;

	X509_STORE_CTX_free(c);
	ERR_clear_error();
	return ok && (!host || k->any_name || X509_check_host(x, host, 0, 0, NULL) == 1 ||
		      X509_check_ip_asc(x, host, 0) == 1);
}

static int shake(SSL *ssl, const char *host, struct error *e)
{
	uint64_t end = now_ns() + TLS_HANDSHAKE_SECS * 1000000000ull;

	for (;;) {
		ERR_clear_error();
		errno = 0;
		int r = host ? SSL_connect(ssl) : SSL_accept(ssl);
		int code = errno, why = SSL_get_error(ssl, r);

		if (r == 1)
			return 0;
		if (job_aborted())
			return job_check_abort(e);
		if (now_ns() >= end)
			return error_say(e, ETIMEDOUT, "TLS: the other side does not finish the handshake");
		if (why == SSL_ERROR_WANT_READ || why == SSL_ERROR_WANT_WRITE)
			continue;
		if (why == SSL_ERROR_SYSCALL && code)
			return error_set(e, code, "TLS handshake");
		if (why == SSL_ERROR_SYSCALL ||
		    ERR_GET_REASON(ERR_peek_error()) == SSL_R_UNEXPECTED_EOF_WHILE_READING) {
			ERR_clear_error();
			return error_say(e, EPROTO, "TLS: the other side hung up during the handshake");
		}
		return error_ssl(e, EPROTO, "TLS handshake");
	}
}

int tls_handshake(int tcp, const struct keys *k, const char *host, SSL **ret, struct tls_peer *peer,
		  struct error *e)
{
	struct timeval limit = {.tv_sec = 1};
	SSL_CTX *c = context(k, !host);
	SSL *ssl = c ? SSL_new(c) : NULL;

	SSL_CTX_free(c);
	if (!ssl || SSL_set_fd(ssl, tcp) != 1) {
		SSL_free(ssl);
		return error_ssl(e, EIO, "cannot set up TLS");
	}
	/* Short, so that the clock and a wish to abort are looked at. */
	setsockopt(tcp, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	setsockopt(tcp, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
	int r = shake(ssl, host, e);
	X509 *x = r == 0 ? SSL_get1_peer_certificate(ssl) : NULL;

	if (r == 0 && !x)
		r = error_say(e, EACCES, "TLS: the other side showed no certificate");
	if (r == 0)
		r = fingerprint_of(x, peer->fingerprint, e);
	if (r == 0)
		peer->by_ca = signed_by_ca(k, ssl, x, host);
	X509_free(x);
	if (r < 0)
		SSL_free(ssl);
	else
		*ret = ssl;
	return r;
}

void tls_close(SSL *ssl)
{
	if (!ssl)
		return;
	SSL_shutdown(ssl);
	SSL_free(ssl);
	ERR_clear_error();
}

/* --- relay --------------------------------------------------------------------------------------- */

struct relay {
	SSL *ssl;
	int tcp, plain;
	/* Both directions: what was read and is not yet written, and whether the reading end has ended. */
	struct flow {
		uint8_t data[BUFFER];
		size_t at, n;
		bool ended, closed;
	} up, down;      /* plain to TLS, TLS to plain */
	short tls_wants; /* POLLIN, POLLOUT: what keeps the library from going on */
	bool failed;
};

/* 1: something happened; 0: not now. */
static int tls_result(struct relay *r, int n)
{
	int why = SSL_get_error(r->ssl, n);

	if (why == SSL_ERROR_WANT_READ || why == SSL_ERROR_WANT_WRITE) {
		r->tls_wants |= why == SSL_ERROR_WANT_READ ? POLLIN : POLLOUT;
		return 0;
	}
	if (why == SSL_ERROR_ZERO_RETURN)
		r->down.ended = true;
	else
		r->failed = true;
	ERR_clear_error();
	return 1;
}

static int pump_up(struct relay *r)
{
	struct flow *f = &r->up;

	if (!f->n && !f->ended) {
		ssize_t n = recv(r->plain, f->data, sizeof(f->data), MSG_DONTWAIT);

		if (n < 0)
			return errno == EAGAIN || errno == EINTR ? 0 : (f->ended = true);
		f->ended = n == 0;
		f->at = 0;
		f->n = (size_t)n;
		return 1;
	}
	if (f->n) {
		int n = SSL_write(r->ssl, f->data + f->at, (int)f->n);

		if (n <= 0)
			return tls_result(r, n);
		f->at += (size_t)n;
		f->n -= (size_t)n;
		return 1;
	}
	if (f->closed)
		return 0;
	f->closed = true;
	SSL_shutdown(r->ssl);
	shutdown(r->tcp, SHUT_WR);
	return 1;
}

static int pump_down(struct relay *r)
{
	struct flow *f = &r->down;

	if (!f->n && !f->ended) {
		int n = SSL_read(r->ssl, f->data, sizeof(f->data));

		if (n <= 0)
			return tls_result(r, n);
		f->at = 0;
		f->n = (size_t)n;
		return 1;
	}
	if (f->n) {
		ssize_t n = send(r->plain, f->data + f->at, f->n, MSG_DONTWAIT | MSG_NOSIGNAL);

		if (n < 0 && errno != EAGAIN && errno != EINTR) {
			/* Nobody reads any more: swallow the rest, so that the other side can end in order.
			 */
			f->n = 0;
			return 1;
		}
		if (n <= 0)
			return 0;
		f->at += (size_t)n;
		f->n -= (size_t)n;
		return 1;
	}
	if (f->closed)
		return 0;
	f->closed = true;
	shutdown(r->plain, SHUT_WR);
	return 1;
}

static void run_relay(struct relay *r)
{
	while (!r->failed && !(r->up.closed && r->down.closed)) {
		r->tls_wants = 0;
		int moved = pump_up(r);

		if (!r->failed)
			moved |= pump_down(r);
		if (moved || r->failed)
			continue;
		struct pollfd p[] = {
			{.fd = r->tcp, .events = r->tls_wants},
			{.fd = r->plain,
			 .events = (short)((!r->up.n && !r->up.ended ? POLLIN : 0) |
					   (r->down.n ? POLLOUT : 0))},
		};

		/* A descriptor of which nothing is wanted would still tell its end, again and again. */
		for (size_t i = 0; i < ARRAY_SIZE(p); i++)
			if (!p[i].events)
				p[i].fd = -1;
		if (poll(p, ARRAY_SIZE(p), r->up.closed ? LINGER_MS : -1) == 0)
			return;
	}
}

int tls_relay(SSL *ssl, int tcp, pid_t *ret_relay, struct error *e)
{
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0) {
		tls_close(ssl);
		close(tcp);
		return error_set(e, errno, "cannot make a socket pair");
	}
	fflush(NULL);
	pid_t pid = fork();

	if (pid == 0) {
		struct relay *r = xcalloc(1, sizeof(*r));

		close_all_but(tcp, pair[1]);
		/* It ends when its connection does, and not before: signals are for the others. */
		for (int sig = 1; sig < NSIG; sig++)
			if (sig != SIGCHLD)
				signal(sig, SIG_IGN);
		fcntl(tcp, F_SETFL, fcntl(tcp, F_GETFL) | O_NONBLOCK);
		r->ssl = ssl;
		r->tcp = tcp;
		r->plain = pair[1];
		run_relay(r);
		_exit(0);
	}
	int code = errno;

	close(pair[1]);
	close(tcp);
	SSL_set_quiet_shutdown(ssl, 1); /* the relay's copy says goodbye */
	SSL_free(ssl);
	if (pid < 0) {
		close(pair[0]);
		return error_set(e, code, "cannot start a process for TLS");
	}
	*ret_relay = pid;
	return pair[0];
}
