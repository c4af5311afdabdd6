/* SPDX-License-Identifier: Apache-2.0 */
#include "migrate/peer.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>

#include "base/util.h"

unsigned peer_silence_secs = 60;

int peer_init(struct peer *p, int sock, struct error *e)
{
	*p = (struct peer){.sock = sock};

	int r = stream_out_socket(&p->out, sock, e);

	if (r >= 0)
		r = stream_in_socket(&p->in, sock, e);
	if (r < 0)
		peer_deinit(p);
	return r;
}

void peer_deinit(struct peer *p)
{
	stream_out_free(p->out);
	stream_in_free(p->in);
	p->out = NULL;
	p->in = NULL;
}

void peer_set_timeout(struct peer *p, unsigned seconds)
{
	struct timeval tv = {.tv_sec = seconds};

	setsockopt(p->sock, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv));
	setsockopt(p->sock, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof(tv));
}

int peer_send(struct peer *p, uint32_t type, const ProtobufCMessage *m, struct error *e)
{
	int r = stream_put(p->out, type, 0, 0, 0, m, e);

	return r < 0 ? r : stream_flush(p->out, e);
}

int peer_take_error(const struct record *rec, struct error *e)
{
	ProtobufCMessage *m;
	int r = record_unpack(rec, &ferry__peer_error__descriptor, &m, e);

	if (r < 0)
		return r;
	const Ferry__PeerError *pe = (const Ferry__PeerError *)m;

	r = error_say(e, pe->code > 0 ? pe->code : EIO, "the other side gave up%s%s: %s",
		      *pe->phase ? " at: " : "", pe->phase, pe->text);
	protobuf_c_message_free_unpacked(m, NULL);
	return r;
}

int peer_next(struct peer *p, struct record *ret, struct error *e)
{
	int r = stream_get(p->in, ret, e);

	if (r == 0)
		return error_say(e, EPIPE, "the other side ended the connection");
	if (r == -EAGAIN || r == -EWOULDBLOCK) {
		error_clear(e);
		return error_say(e, ETIMEDOUT, "the other side does not answer");
	}
	if (r < 0)
		return r;
	if (!ret->is_pages && ret->type == FERRY__RECORD_TYPE__RECORD_PEER_ERROR) {
		p->got_error = true;
		return peer_take_error(ret, e);
	}
	return 0;
}

int peer_expect(struct peer *p, uint32_t type, const ProtobufCMessageDescriptor *d, ProtobufCMessage **ret,
		struct error *e)
{
	struct record rec;
	int r = peer_next(p, &rec, e);

	if (r < 0)
		return r;
	if (rec.is_pages || rec.type != type)
		return error_say(e, EPROTO, "the other side sent record %u where %u was due",
				 rec.is_pages ? 4 : rec.type, type);
	return ret ? record_unpack(&rec, d, ret, e) : 0;
}

void peer_send_error(struct peer *p, const struct error *why)
{
	struct error ignore = ERROR_INIT;
	Ferry__PeerError pe = FERRY__PEER_ERROR__INIT;

	if (p->sent_error || !p->out)
		return;
	p->sent_error = true;
	pe.code = why->code;
	pe.phase = (char *)why->phase;
	pe.text = (char *)why->text;
	peer_send(p, FERRY__RECORD_TYPE__RECORD_PEER_ERROR, &pe.base, &ignore);
	/* What the other side is still sending would otherwise answer our close with a reset, and the reset
	 * would throw away our message before it is read. */
	shutdown(p->sock, SHUT_WR);
	uint64_t end = now_ns() + 2000000000ull;
	char sink[65536];
	struct pollfd pfd = {.fd = p->sock, .events = POLLIN};

	while (now_ns() < end && poll(&pfd, 1, 200) > 0 &&
	       recv(p->sock, sink, sizeof(sink), MSG_DONTWAIT) > 0)
		;
}

void peer_explain(struct peer *p, struct error *e)
{
	struct error theirs = ERROR_INIT;
	struct record rec;

	if (e->code != EPIPE && e->code != ECONNRESET)
		return;
	peer_set_timeout(p, 2);
	while (stream_get(p->in, &rec, &theirs) > 0)
		if (!rec.is_pages && rec.type == FERRY__RECORD_TYPE__RECORD_PEER_ERROR) {
			struct error said = ERROR_INIT;

			peer_take_error(&rec, &said);
			memcpy(said.phase, e->phase, sizeof(said.phase));
			*e = said;
			return;
		}
}
