/* SPDX-License-Identifier: Apache-2.0 */
#include "migrate/join.h"

#include <assert.h>
#include <errno.h>
#include <openssl/crypto.h>
#include <poll.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "base/util.h"
#include "migrate/bundle.h"
#include "migrate/lane.h"

/* The streams so far end here, without a trailer: both sides begin new ones over all connections. */
static int become_bundle(struct link *link, struct peer *p, int *socks, unsigned n, struct error *e)
{
	pid_t pid;

	peer_deinit(p);
	socks[0] = TAKE_FD(link->sock);
	int sock = bundle_start(socks, n, &pid, e);

	if (sock < 0)
		return sock;
	/* The relays of TLS, if there are any, end with their connections. */
	link->sock = sock;
	link->relay = pid;
	int r = peer_init(p, sock, e);

	if (r >= 0)
		peer_set_timeout(p, peer_silence_secs);
	return r;
}

/* Whose a connection is. Without TLS the fingerprint is empty. */
struct token {
	uint8_t secret[JOIN_SECRET];
	char fingerprint[FINGERPRINT_SIZE];
};
static_assert(sizeof(struct token) <= LANE_TOKEN_MAX, "token of a lane");

static void make_token(struct token *ret, const struct link *link, const uint8_t *secret, size_t size)
{
	*ret = (struct token){0};
	if (size == JOIN_SECRET)
		memcpy(ret->secret, secret, size);
	snprintf(ret->fingerprint, sizeof(ret->fingerprint), "%s", link->fingerprint);
}

static void close_all(int *socks, unsigned n)
{
	for (unsigned i = 1; i < n; i++)
		if (socks[i] >= 0)
			close(socks[i]);
}

static int say_join(int sock, const char *uuid, unsigned index, const ProtobufCBinaryData *secret,
		    struct error *e)
{
	Ferry__PeerJoin j = FERRY__PEER_JOIN__INIT;
	struct peer p;
	int r = peer_init(&p, sock, e);

	if (r < 0)
		return r;
	j.uuid = (char *)uuid;
	j.index = index;
	j.secret = *secret;
	r = peer_send(&p, FERRY__RECORD_TYPE__RECORD_PEER_JOIN, &j.base, e);
	peer_deinit(&p);
	return r;
}

int join_dial(struct link *link, struct peer *p, unsigned n, const char *to, const struct link_options *o,
	      const char *uuid, const ProtobufCBinaryData *secret, struct error *e)
{
	int socks[BUNDLE_MAX] = {-1}, r = 0;
	unsigned have = 1;

	for (; have < n && r >= 0; have++) {
		struct link other;

		r = link_connect(to, o, GRANT_RECEIVE, &other, e);
		socks[have] = other.sock;
		if (r >= 0)
			r = say_join(other.sock, uuid, have, secret, e);
	}
	if (r >= 0)
		r = peer_expect(p, FERRY__RECORD_TYPE__RECORD_PEER_JOINED, NULL, NULL, e);
	if (r < 0) {
		close_all(socks, have);
		return error_prefix(e, "connection %u of %u", MIN(have, n), n);
	}
	return become_bundle(link, p, socks, n, e);
}

static char *join_path(const char *dir, const char *uuid)
{
	return xasprintf("%s/journal/in/%s.join", dir, uuid);
}

int join_listen(const char *dir, const char *uuid, uint8_t ret_secret[JOIN_SECRET], struct error *e)
{
	cleanup_free char *path = join_path(dir, uuid);

	if (getrandom(ret_secret, JOIN_SECRET, 0) != JOIN_SECRET)
		return error_set(e, errno, "random bytes");

	return lane_listen(path, e);
}

void join_forget(const char *dir, const char *uuid)
{
	cleanup_free char *path = join_path(dir, uuid);

	unlink(path);
}

/* One more of them; the first connection has nothing to say meanwhile but that it is over. */
static int wait_for_one(struct peer *p, int listener, unsigned n, uint64_t end, int socks[BUNDLE_MAX],
			const struct token *ours, const struct events *ev, struct error *e)
{
	struct token token;
	struct pollfd ready[] = {{listener, POLLIN, 0}, {p->sock, POLLIN, 0}};
	uint64_t now = now_ns();
	int index, sock;

	if (now >= end)
		return error_say(e, ETIMEDOUT, "the other connections of the migration did not come");
	if (poll(ready, 2, (int)((end - now) / 1000000) + 1) < 0 && errno != EINTR)
		return error_set(e, errno, "wait for connections");
	if (job_aborted())
		return job_check_abort(e);
	if (ready[1].revents)
		return peer_expect(p, FERRY__RECORD_TYPE__RECORD_PEER_JOINED, NULL, NULL, e) < 0
			       ? -e->code
			       : error_say(e, EPROTO, "the source did not wait for its other connections");
	sock = ready[0].revents ? lane_take(listener, &index, &token, sizeof(token)) : -EAGAIN;
	if (sock < 0)
		return 0;
	if (CRYPTO_memcmp(&token, ours, sizeof(token)) != 0) {
		close(sock);
		events_log(ev, 2,
			   "a connection that wanted to belong to this migration is not of its source");
		return 0;
	}
	if (index < 1 || index >= (int)n || socks[index] >= 0) {
		close(sock);
		return error_say(e, EPROTO, "a connection of number %d came to a migration of %u", index, n);
	}
	socks[index] = sock;
	return 1;
}

int join_wait(struct link *link, struct peer *p, unsigned n, const char *dir, const char *uuid, int listener,
	      const uint8_t *secret, const struct events *ev, struct error *e)
{
	struct token ours;
	Ferry__PeerJoin done = FERRY__PEER_JOIN__INIT;
	cleanup_free char *path = join_path(dir, uuid);
	uint64_t end = now_ns() + 2 * PEER_HELLO_SECS * 1000000000ull;
	int socks[BUNDLE_MAX], r = 0;

	memset(socks, -1, sizeof(socks));
	make_token(&ours, link, secret, JOIN_SECRET);
	for (unsigned have = 1; have < n && r >= 0; have += r > 0)
		r = wait_for_one(p, listener, n, end, socks, &ours, ev, e);
	close(listener);
	unlink(path);
	done.uuid = (char *)uuid;
	if (r >= 0)
		r = peer_send(p, FERRY__RECORD_TYPE__RECORD_PEER_JOINED, &done.base, e);
	if (r < 0) {
		close_all(socks, n);
		return r;
	}
	return become_bundle(link, p, socks, n, e);
}

int join_give(struct link *link, const char *dir, const Ferry__PeerJoin *join, struct error *e)
{
	cleanup_free char *path = join_path(dir, join->uuid);
	struct token token;

	make_token(&token, link, join->secret.data, join->secret.len);
	int r = join->index < BUNDLE_MAX
			? lane_give(path, link->sock, (int)join->index, &token, sizeof(token))
			: -EINVAL;

	if (r < 0)
		return error_set(e, -r, "connection %u of migration %s is not expected", join->index,
				 join->uuid);
	/* Its relay lives as long as the connection does. */
	link->relay = 0;
	return 0;
}
