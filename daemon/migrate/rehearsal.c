/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A migration that does not take place.
 *
 * The source begins as for a migration: it examines the target, tracks it, and sends inventory, warm state
 * and layout, but no page.  The destination runs the checks that it would run before it makes anything.  Then
 * the link is measured, and left; the target is followed for some time, and its rounds are played at that
 * speed (engine/converge.h).
 */
#include "migrate/rehearsal.h"

#include <errno.h>
#include <string.h>

#include "base/util.h"
#include "engine/observe.h"
#include "engine/restore.h"
#include "engine/source.h"
#include "migrate/hello.h"
#include "migrate/look.h"

#define PROBE_BYTES (1u << 20)
#define PROBE_NS    150000000u /* so long a batch has to take to be believed */
#define PROBE_MOST  256u       /* of PROBE_BYTES in a batch */
#define INTERVALS   6

/* --- source ---------------------------------------------------------------------------------------- */

/* One batch of the given size: its time. */
static int probe(struct peer *p, unsigned n, uint64_t *ret_ns, struct error *e)
{
	cleanup_free uint8_t *data = xcalloc(1, PROBE_BYTES);
	Ferry__PeerProbe m = FERRY__PEER_PROBE__INIT;
	Ferry__PeerRound end = FERRY__PEER_ROUND__INIT;
	uint64_t t0 = now_ns();
	int r = 0;

	m.data.data = data;
	m.data.len = PROBE_BYTES;
	for (unsigned i = 0; i < n && r >= 0; i++)
		r = peer_send(p, FERRY__RECORD_TYPE__RECORD_PEER_PROBE, &m.base, e);
	end.n = n;
	if (r >= 0)
		r = peer_send(p, FERRY__RECORD_TYPE__RECORD_PEER_ROUND_END, &end.base, e);
	if (r >= 0)
		r = peer_expect(p, FERRY__RECORD_TYPE__RECORD_PEER_ROUND_DONE, NULL, NULL, e);
	*ret_ns = now_ns() - t0;
	return r;
}

/* Of the link (bytes/s), or of the copying of pages at both ends, whichever is less. */
static int measure(struct peer *p, const struct migrate_options *o, uint64_t *ret, uint64_t *ret_rtt,
		   struct error *e)
{
	uint64_t ns = 0, copying;
	int r = probe(p, 0, ret_rtt, e);

	for (unsigned n = 2; r >= 0 && ns < PROBE_NS && n <= PROBE_MOST; n *= 2) {
		r = probe(p, n, &ns, e);
		*ret = (uint64_t)n * PROBE_BYTES * 1000000000u / (ns ? ns : 1);
	}
	if (r >= 0)
		r = loopback_bandwidth(&copying, e);
	if (r < 0)
		return r;
	*ret = MIN(*ret, copying);
	if (o->session.max_bandwidth)
		*ret = MIN(*ret, o->session.max_bandwidth);
	return 0;
}

/* All but the pages of a first round; the destination says what it thinks of it. */
static int show(struct peer *p, struct session *s, struct error *e)
{
	int r = session_put_inventory(s, p->out, false, e);

	return r < 0 ? r : look_until_content(p, s, true, e);
}

static int greet(struct peer *p, const struct migrate_options *o, struct error *e)
{
	Ferry__PeerHello h = FERRY__PEER_HELLO__INIT;
	ProtobufCMessage *reply = NULL;
	char host[256];

	hello_fill(&h, host, "");
	hello_fill_source(&h, &o->session);
	peer_set_timeout(p, PEER_HELLO_SECS);
	int r = peer_send(p, FERRY__RECORD_TYPE__RECORD_PEER_CHECK, &h.base, e);

	if (r >= 0)
		r = peer_expect(p, FERRY__RECORD_TYPE__RECORD_PEER_HELLO, &ferry__peer_hello__descriptor,
				&reply, e);
	if (r < 0)
		return error_prefix(e, "%s", o->to);
	r = hello_check((const Ferry__PeerHello *)reply, o->to, e);
	protobuf_c_message_free_unpacked(reply, NULL);
	peer_set_timeout(p, peer_silence_secs);
	return r;
}

/* The last of the predictions that go by. */
struct listener {
	const struct events *ev;
	json_t *last;
};

static void listen_in(void *ctx, const json_t *ev)
{
	struct listener *l = ctx;
	json_t *m = json_object_get(ev, "migration");

	if (m) {
		json_decref(l->last);
		l->last = json_deep_copy(m);
	}
	events_emit(l->ev, json_deep_copy(ev));
}

static int visit(const struct migrate_options *o, struct session *s, uint64_t *ret_bandwidth,
		 uint64_t *ret_rtt, const struct events *ev, struct error *e)
{
	struct link link = LINK_INIT;
	struct peer p = {0};
	int r;

	error_phase(e, "connect");
	r = link_connect(o->to, &o->link, GRANT_RECEIVE, &link, e);
	if (r >= 0 && link.beyond && !link.encrypted)
		events_log(ev, 2, "the link to %s is not encrypted (--insecure)", o->to);
	if (r >= 0)
		r = peer_init(&p, link.sock, e);
	error_phase(e, "hello");
	if (r >= 0)
		r = greet(&p, o, e);
	if (r >= 0)
		r = show(&p, s, e);
	error_phase(e, "measure the link");
	if (r >= 0)
		r = measure(&p, o, ret_bandwidth, ret_rtt, e);
	if (r < 0) {
		peer_explain(&p, e);
		peer_send_error(&p, e);
	}
	peer_deinit(&p);
	link_close(&link);
	return r;
}

int rehearsal_run(const struct migrate_options *o, uint64_t duration_ms, const struct events *ev,
		  struct error *e)
{
	struct listener l = {.ev = ev};
	const struct events through = {.emit = listen_in, .ctx = &l};
	struct observe_options watch = {.duration_ms = duration_ms,
					.interval_ms = MAX(duration_ms / INTERVALS, (uint64_t)10)};
	struct session *s = NULL;
	uint64_t rtt = 0;

	if (!strcmp(o->session.backend, "none"))
		return error_say(e, EINVAL, "a dry run needs a backend that follows the target");
	error_phase(e, "examine the target");
	int r = session_open(&s, &o->session, &through, e);

	if (r >= 0)
		r = visit(o, s, &watch.bandwidth, &rtt, ev, e);
	if (r >= 0) {
		s->costs.rtt_ns = rtt;
		r = session_observe(s, &watch, e);
	}
	session_close(s);
	if (r >= 0 && !l.last)
		r = error_say(e, EAGAIN, "process %d has ended before anything could be said of it",
			      o->session.pid);
	if (r >= 0) {
		json_object_set_new(l.last, "event", json_string("prediction"));
		json_object_set_new(l.last, "rtt_ms", json_real(rtt / 1e6));
		json_object_set_new(l.last, "budget_ms", json_integer(o->session.downtime_ms));
		json_object_del(l.last, "bandwidth");
		events_emit(ev, json_incref(l.last));
	}
	json_decref(l.last);
	return r;
}

/* --- destination ----------------------------------------------------------------------------------- */

static int answer(struct peer *p, struct restore *r, const struct record *rec, bool *checked, struct error *e)
{
	ProtobufCMessage *m;
	int x = record_unpack(rec, &ferry__peer_round__descriptor, &m, e);

	if (x < 0)
		return x;
	struct error complaint = ERROR_INIT;
	Ferry__PeerRound done = FERRY__PEER_ROUND__INIT;

	done.n = ((Ferry__PeerRound *)m)->n;
	protobuf_c_message_free_unpacked(m, NULL);
	if (!*checked && (restore_look(r, &complaint) < 0 || restore_check_places(r, &complaint) < 0))
		done.complaint = complaint.text;
	*checked = !*done.complaint;
	x = peer_send(p, FERRY__RECORD_TYPE__RECORD_PEER_ROUND_DONE, &done.base, e);
	error_clear(&complaint);
	return x;
}

static int receive(struct peer *p, struct restore *r, struct error *e)
{
	struct record rec;
	bool checked = false;
	int x;

	while ((x = stream_get(p->in, &rec, e)) > 0) {
		if (rec.is_pages)
			x = error_say(e, EPROTO, "the source sent pages where a check was due");
		else if (rec.type < FERRY__RECORD_TYPE__RECORD_PEER_HELLO)
			x = restore_feed(r, &rec, e);
		else if (rec.type == FERRY__RECORD_TYPE__RECORD_PEER_ROUND_END)
			x = answer(p, r, &rec, &checked, e);
		else if (rec.type == FERRY__RECORD_TYPE__RECORD_PEER_ERROR)
			return peer_take_error(&rec, e);
		else if (rec.type != FERRY__RECORD_TYPE__RECORD_PEER_PROBE)
			x = error_say(e, EPROTO, "the source sent record %u where a check was due", rec.type);
		if (x >= 0)
			x = job_check_abort(e);
		if (x < 0)
			return x;
	}
	/* It has seen enough, and just left. */
	if (x < 0 && checked)
		error_clear(e);
	return checked ? 0 : x < 0 ? x : error_say(e, EPIPE, "the source ended the connection");
}

int rehearsal_serve(struct peer *p, const struct record *first, const struct restore_limits *l,
		    const struct events *ev, struct error *e)
{
	struct restore_options o = {0};
	struct restore *r = NULL;
	Ferry__PeerHello h = FERRY__PEER_HELLO__INIT;
	ProtobufCMessage *m;
	char host[256];
	int x = record_unpack(first, &ferry__peer_hello__descriptor, &m, e);

	if (x < 0)
		return x;
	x = hello_accept((const Ferry__PeerHello *)m, &o, e);
	protobuf_c_message_free_unpacked(m, NULL);
	o.limits = *l;
	o.limits.rehearsal = true;
	if (x >= 0)
		x = restore_new(&r, &o, ev, e);
	hello_fill(&h, host, "");
	if (x >= 0)
		x = peer_send(p, FERRY__RECORD_TYPE__RECORD_PEER_HELLO, &h.base, e);
	peer_set_timeout(p, peer_silence_secs);
	if (x >= 0)
		x = receive(p, r, e);
	restore_free(r);
	free((char *)o.state.cgroup_root);
	return x;
}
