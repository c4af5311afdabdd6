/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The destination of a migration: one process per connection.  It traces the skeletons until they start, so
 * they die with it; once `starting` is in the journal they run whatever happens to the link, or to it.
 */
#include "migrate/migrate.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/urgent.h"
#include "base/util.h"
#include "engine/allowance.h"
#include "engine/restore.h"
#include "migrate/arrival.h"
#include "migrate/fetch.h"
#include "migrate/bundle.h"
#include "migrate/hello.h"
#include "migrate/join.h"
#include "migrate/lane.h"
#include "migrate/peer.h"
#include "migrate/rehearsal.h"
#include "procfs/procfs.h"

#define PACKETS_SECS 2

struct arrival {
	struct peer peer;
	struct link *link;
	const struct serve_options *opt;
	const char *dir; /* of the journal */
	const struct events *events;
	struct machine machine;
	struct restore *r;
	struct pager *pager; /* post-copy: pages are missing when it starts; else NULL */
	char uuid[37];
	bool placed;       /* its processes are where they belong */
	char *cgroup_root; /* what its options refer to */
	bool source_knows; /* that this ends without a start */
	bool more_packets; /* follow, though pages are missing */
};

static int answer_query(struct arrival *a, const struct record *rec, struct error *e)
{
	cleanup_free char *life = journal_life();
	ProtobufCMessage *m;
	Ferry__PeerAnswer ans = FERRY__PEER_ANSWER__INIT;
	int r = record_unpack(rec, &ferry__peer_query__descriptor, &m, e);

	if (r < 0)
		return r;
	const char *uuid = ((Ferry__PeerQuery *)m)->uuid;

	ans.state = (char *)(journal_uuid_ok(uuid) ? arrival_answer(a->dir, uuid, a->events) : "unknown");
	ans.life = life;
	r = peer_send(&a->peer, FERRY__RECORD_TYPE__RECORD_PEER_ANSWER, &ans.base, e);
	protobuf_c_message_free_unpacked(m, NULL);
	return r;
}

static int take_done(struct arrival *a, const struct record *rec, struct error *e)
{
	ProtobufCMessage *m;
	int r = record_unpack(rec, &ferry__peer_done__descriptor, &m, e);

	if (r < 0)
		return r;
	if (journal_uuid_ok(((Ferry__PeerDone *)m)->uuid))
		arrival_forget(a->dir, ((Ferry__PeerDone *)m)->uuid, a->events);
	protobuf_c_message_free_unpacked(m, NULL);
	return 0;
}

static int reply_hello(struct arrival *a, unsigned streams, const uint8_t *secret, struct error *e)
{
	cleanup_free char *life = journal_life();
	Ferry__PeerHello h = FERRY__PEER_HELLO__INIT;
	char host[256];

	hello_fill(&h, host, life);
	h.uuid = a->uuid;
	h.post_copy = lazy_possible(false);
	h.post_copy_shared = lazy_possible(true);
	h.codecs = CODECS_KNOWN;
	h.copies = true;
	h.freeze = true;
	h.streams = streams;
	h.join_secret = (ProtobufCBinaryData){streams > 1 ? JOIN_SECRET : 0, (uint8_t *)secret};
	return peer_send(&a->peer, FERRY__RECORD_TYPE__RECORD_PEER_HELLO, &h.base, e);
}

/* The source hears of it all the time, and we of its end. */
static int wait_for_turn(struct arrival *a, struct error *e)
{
	Ferry__PeerQueued q = FERRY__PEER_QUEUED__INIT;
	int r;

	if (!a->opt->admit)
		return 0;
	error_phase(e, "queue");
	while ((r = a->opt->admit(a->opt->admit_ctx, e)) > 0) {
		q.position = (unsigned)r;
		r = peer_send(&a->peer, FERRY__RECORD_TYPE__RECORD_PEER_QUEUED, &q.base, e);
		if (r >= 0)
			r = job_check_abort(e);
		if (r < 0)
			return r;
	}
	error_phase(e, "hello");
	return r;
}

static int greet(struct arrival *a, unsigned streams, struct error *e)
{
	unsigned n = MIN(streams, BUNDLE_MAX);
	uint8_t secret[JOIN_SECRET];
	int listener = n > 1 ? join_listen(a->dir, a->uuid, secret, e) : -1, r;

	if (n > 1 && listener < 0)
		return listener;
	r = reply_hello(a, n, secret, e);
	if (r >= 0 && n > 1)
		return join_wait(a->link, &a->peer, n, a->dir, a->uuid, listener, secret, a->events, e);
	if (listener >= 0)
		close(listener);
	return r;
}

/* A further connection of a migration that has begun. */
static int take_join(struct arrival *a, const struct record *rec, struct error *e)
{
	ProtobufCMessage *m;
	int r = record_unpack(rec, &ferry__peer_join__descriptor, &m, e);

	if (r < 0)
		return r;
	const Ferry__PeerJoin *j = (const Ferry__PeerJoin *)m;

	r = journal_uuid_ok(j->uuid) ? join_give(a->link, a->dir, j, e)
				     : error_say(e, EPROTO, "the source sent no valid migration id");
	protobuf_c_message_free_unpacked(m, NULL);
	return r;
}

static int take_hello(struct arrival *a, const struct record *rec, struct error *e)
{
	struct restore_options o = {0};
	ProtobufCMessage *m;
	int r = record_unpack(rec, &ferry__peer_hello__descriptor, &m, e);

	if (r < 0)
		return r;
	const Ferry__PeerHello *h = (const Ferry__PeerHello *)m;

	r = hello_accept(h, &o, e);
	a->cgroup_root = (char *)o.state.cgroup_root;
	a->placed = o.state.cgroups != CGROUPS_IGNORE; /* the source says where that is */
	if (r >= 0 && !journal_uuid_ok(h->uuid))
		r = error_say(e, EPROTO, "the source sent no valid migration id");
	if (r >= 0)
		r = wait_for_turn(a, e);
	if (r >= 0) {
		memcpy(a->uuid, h->uuid, sizeof(a->uuid));
		a->machine.journal = journal_new(a->dir, SIDE_DESTINATION, a->uuid);
		r = machine_move(&a->machine, DEST_RECEIVING, e);
	}
	o.limits = a->opt->limits;
	if (r >= 0)
		r = restore_new(&a->r, &o, a->events, e);
	if (r >= 0)
		r = greet(a, h->streams, e);
	protobuf_c_message_free_unpacked(m, NULL);
	return r;
}

/* Round 0 has no pages: the source shows what state there is. What we say of it is for the source to decide
 * upon. */
struct pids {
	pid_t *v;
	size_t n;
};

static void collect(void *ctx, pid_t pid, bool runs)
{
	struct pids *p = ctx;

	(void)runs;
	p->v = xrealloc(p->v, (p->n + 1) * sizeof(*p->v));
	p->v[p->n++] = pid;
}

/* What is forked later is where its parent is. */
static void place(struct arrival *a)
{
	struct pids p = {0};

	if (a->placed || !a->opt->place)
		return;
	a->placed = true;
	restore_each(a->r, collect, &p);
	a->opt->place(a->uuid, p.v, p.n, a->events);
	free(p.v);
}

static int end_of_round(struct arrival *a, const struct record *rec, struct error *e)
{
	struct error complaint = ERROR_INIT;
	ProtobufCMessage *m;
	int r = record_unpack(rec, &ferry__peer_round__descriptor, &m, e);

	if (r < 0)
		return r;
	Ferry__PeerRound done = FERRY__PEER_ROUND__INIT;

	done.n = ((Ferry__PeerRound *)m)->n;
	protobuf_c_message_free_unpacked(m, NULL);
	error_phase(e, "round %u", done.n);
	if (done.n > 0)
		r = restore_sync(a->r, e);
	else if (restore_look(a->r, &complaint) < 0)
		done.complaint = complaint.text;
	if (r >= 0 && done.n > 0)
		place(a);
	if (r >= 0)
		r = peer_send(&a->peer, FERRY__RECORD_TYPE__RECORD_PEER_ROUND_DONE, &done.base, e);
	error_clear(&complaint);
	return r;
}

static void list_process(void *ctx, pid_t pid, bool runs)
{
	struct arrival *a = ctx;
	struct proc_stat st;
	struct error ignore = ERROR_INIT;

	if (proc_stat_read(pid, 0, &st, &ignore) == 0)
		journal_add_process(a->machine.journal, pid, st.start_time, runs);
}

static void list_address(void *ctx, const char *local, const char *peer)
{
	journal_add_address(((struct arrival *)ctx)->machine.journal, local, peer);
}

/* From here on our death does not lose what the userfaultfds are for. */
static int keep_missing(struct arrival *a, struct error *e)
{
	cleanup_free char *path = lane_state_path(a->dir, a->uuid);

	int r = restore_take_pager(a->r, &a->pager, e);

	return r < 0 ? r : pager_write(a->pager, path, e);
}

static int become_ready(struct arrival *a, struct error *e)
{
	Ferry__PeerReady ready = FERRY__PEER_READY__INIT;
	uint64_t t0 = now_ns();
	int r = machine_move(&a->machine, DEST_BUILDING, e);

	if (r >= 0)
		r = restore_prepare(a->r, e);
	if (r >= 0 && restore_missing_bytes(a->r))
		r = keep_missing(a, e);
	if (r >= 0) {
		restore_each(a->r, list_process, a);
		restore_each_address(a->r, list_address, a);
		r = machine_move(&a->machine, DEST_READY, e);
	}
	ready.prepare_ns = now_ns() - t0;
	cleanup_free uint64_t *made = restore_made_objects(a->r, &ready.n_made_objects);

	ready.made_objects = made;
	error_phase(e, "ready");
	return r < 0 ? r : peer_send(&a->peer, FERRY__RECORD_TYPE__RECORD_PEER_READY, &ready.base, e);
}

/* A source that gives up says so: then it will never ask. */
static int expect_commit(struct arrival *a, struct error *e)
{
	ProtobufCMessage *m = NULL;
	int r = peer_expect(&a->peer, FERRY__RECORD_TYPE__RECORD_PEER_COMMIT, &ferry__peer_commit__descriptor,
			    &m, e);

	a->source_knows = r < 0 && a->peer.got_error;
	if (r < 0)
		return r;
	const Ferry__PeerCommit *c = (const Ferry__PeerCommit *)m;

	restore_put_packets(a->r, c->packets, c->n_packets);
	a->more_packets = c->more;
	protobuf_c_message_free_unpacked(m, NULL);
	return 0;
}

/* Of TCP connections. 1: they were; 0: @rec is something else. */
static int take_packets(struct arrival *a, const struct record *rec, struct error *e)
{
	ProtobufCMessage *m;

	if (rec->is_pages || rec->type != FERRY__RECORD_TYPE__RECORD_PEER_PACKETS)
		return 0;
	int r = record_unpack(rec, &ferry__peer_packets__descriptor, &m, e);

	if (r < 0)
		return r;
	const Ferry__PeerPackets *p = (const Ferry__PeerPackets *)m;

	restore_put_packets(a->r, p->packets, p->n_packets);
	protobuf_c_message_free_unpacked(m, NULL);
	return 1;
}

/* Before the connection becomes a lane.  If they do not come it is of no use as one, either; the source dials
 * again. */
static void expect_packets(struct arrival *a)
{
	struct error link = ERROR_INIT;
	struct record rec;

	peer_set_timeout(&a->peer, PACKETS_SECS);
	int r = stream_get(a->peer.in, &rec, &link);

	if (r <= 0 || take_packets(a, &rec, &link) <= 0)
		shutdown(a->link->sock, SHUT_RDWR);
}

/* Perhaps packets before it. */
static int expect_done(struct arrival *a, struct error *e)
{
	struct record rec;
	int r = stream_get(a->peer.in, &rec, e);

	if (r > 0) {
		int packets = take_packets(a, &rec, e);

		r = packets > 0 ? stream_get(a->peer.in, &rec, e) : packets < 0 ? packets : r;
	}
	return r > 0 && !rec.is_pages && rec.type == FERRY__RECORD_TYPE__RECORD_PEER_DONE ? 0 : -EPROTO;
}

/* It runs, whatever happens to the link or to us. */
static void tell_running(struct arrival *a, pid_t root)
{
	Ferry__PeerRunning run = FERRY__PEER_RUNNING__INIT;
	struct error link = ERROR_INIT;

	run.pid = root;
	run.missing = a->pager ? a->pager->total : 0;
	int r = peer_send(&a->peer, FERRY__RECORD_TYPE__RECORD_PEER_RUNNING, &run.base, &link);

	events_emit(a->events, json_pack("{s:s,s:i,s:s}", "event", "arrived", "pid", root, "uuid", a->uuid));
	if (a->pager && a->more_packets)
		expect_packets(a);
	if (a->pager)
		return;
	/* If it does not come, the source may ask later. */
	if (r >= 0)
		r = expect_done(a, &link);
	if (r >= 0)
		(void)machine_move(&a->machine, DEST_ENDED, &link);
}

/* The connection becomes the lane for faults. */
static int fetch(struct arrival *a, int lane, struct error *e)
{
	/* The skeletons are processes of their own by now. */
	restore_free(TAKE_PTR(a->r));
	peer_deinit(&a->peer);
	return fetch_run(&a->machine, a->dir, a->pager, TAKE_FD(a->link->sock), lane, e);
}

static int finish(struct arrival *a, struct error *e)
{
	struct error trouble = ERROR_INIT;
	pid_t root;
	int r = become_ready(a, e);

	if (r >= 0)
		r = expect_commit(a, e);
	if (r >= 0)
		r = machine_move(&a->machine, DEST_COMMITTED, e);
	error_phase(e, "start");
	if (r >= 0)
		r = restore_hold(a->r, e);
	if (r >= 0)
		r = machine_move(&a->machine, DEST_STARTING, e);
	if (r < 0)
		return r;
	/* No way back from here. */
	if (restore_start(a->r, &root, &trouble) < 0)
		events_log(a->events, 1, "the start was not clean: %s", trouble.text);
	(void)machine_move(&a->machine, a->pager ? DEST_FETCHING : DEST_RUNNING, &trouble);
	tell_running(a, root);
	urgent_end();
	return a->pager ? fetch(a, 0, e) : 0;
}

static int take_missing(struct arrival *a, const struct record *rec, struct error *e)
{
	ProtobufCMessage *m;
	int r = record_unpack(rec, &ferry__peer_missing__descriptor, &m, e);

	if (r < 0)
		return r;
	const Ferry__PeerMissing *list = (const Ferry__PeerMissing *)m;

	r = restore_expect_missing(a->r, rec->pid, list->ranges, list->n_ranges, e);
	if (r >= 0)
		r = allowance_missing(a->r, e);
	protobuf_c_message_free_unpacked(m, NULL);
	return r;
}

static int receive(struct arrival *a, struct error *e)
{
	struct record rec;
	int r;

	while ((r = stream_get(a->peer.in, &rec, e)) > 0) {
		if (rec.is_pages || rec.type < FERRY__RECORD_TYPE__RECORD_PEER_HELLO)
			r = restore_feed(a->r, &rec, e);
		else if (rec.type == FERRY__RECORD_TYPE__RECORD_PEER_ROUND_END)
			r = end_of_round(a, &rec, e);
		else if (rec.type == FERRY__RECORD_TYPE__RECORD_PEER_MISSING)
			r = take_missing(a, &rec, e);
		else if (rec.type == FERRY__RECORD_TYPE__RECORD_PEER_FREEZE)
			urgent_begin();
		else if (rec.type == FERRY__RECORD_TYPE__RECORD_PEER_FINAL)
			return finish(a, e);
		else if (rec.type == FERRY__RECORD_TYPE__RECORD_PEER_ERROR)
			return peer_take_error(&rec, e);
		else
			return error_say(e, EPROTO, "the source sent record %u where a round was due",
					 rec.type);
		if (r >= 0)
			r = job_check_abort(e);
		if (r < 0)
			return r;
	}
	return r < 0 ? r : error_say(e, EPIPE, "the source ended the connection");
}

/* --- more connections of a post-copy --------------------------------------------------------------- */

static int answer_state(struct arrival *a, const char *state, struct error *e)
{
	Ferry__PeerAnswer ans = FERRY__PEER_ANSWER__INIT;

	ans.state = (char *)state;
	return peer_send(&a->peer, FERRY__RECORD_TYPE__RECORD_PEER_ANSWER, &ans.base, e);
}

/* The one that fetched has died: it is us now. */
static int take_over(struct arrival *a, struct journal *j, int lane, struct error *e)
{
	cleanup_free char *path = lane_state_path(a->dir, j->uuid);
	struct pager *p;
	int r = pager_open(&p, path, e);

	if (r < 0)
		return r;
	events_log(a->events, 2,
		   "migration %s: the process that fetched its pages has died, this one goes on", j->uuid);
	memcpy(a->uuid, j->uuid, sizeof(a->uuid));
	a->machine.journal = j;
	a->machine.state = DEST_FETCHING;
	a->pager = p;
	return fetch(a, lane, e);
}

/* The source serves pages: to the process that fetches, or to its successor. */
static int take_lane(struct arrival *a, const struct record *rec, struct error *e)
{
	struct journal *j = NULL;
	ProtobufCMessage *m;
	int r = record_unpack(rec, &ferry__peer_pages__descriptor, &m, e);

	if (r < 0)
		return r;
	const Ferry__PeerPages *pages = (const Ferry__PeerPages *)m;
	int lane = (int)pages->lane;
	const char *state =
		journal_uuid_ok(pages->uuid) ? arrival_answer(a->dir, pages->uuid, a->events) : "unknown";

	if (!strcmp(state, "fetching"))
		r = journal_open(&j, a->dir, SIDE_DESTINATION, pages->uuid, e);
	protobuf_c_message_free_unpacked(m, NULL);
	if (r < 0 || !j)
		return r < 0 ? r : answer_state(a, state, e);
	if (j->fd >= 0 && j->state == DEST_FETCHING)
		return take_over(a, j, lane, e);
	cleanup_free char *path = lane_path(a->dir, j->uuid);

	r = lane_give(path, a->link->sock, lane, NULL, 0);
	journal_free(j);
	if (r < 0)
		return answer_state(a, "pending", e);
	/* Its relay lives as long as the connection does. */
	a->link->relay = 0;
	return 0;
}

static int serve(struct arrival *a, struct error *e)
{
	struct record rec;

	error_phase(e, "hello");
	peer_set_timeout(&a->peer, PEER_HELLO_SECS);
	int r = stream_get(a->peer.in, &rec, e);

	if (r == 0)
		return error_say(e, EPIPE, "the peer ended the connection without a word");
	if (r < 0)
		return r;
	if (!rec.is_pages && rec.type == FERRY__RECORD_TYPE__RECORD_PEER_QUERY)
		return answer_query(a, &rec, e);
	if (!rec.is_pages && rec.type == FERRY__RECORD_TYPE__RECORD_PEER_DONE)
		return take_done(a, &rec, e);
	if (!rec.is_pages && rec.type == FERRY__RECORD_TYPE__RECORD_PEER_CHECK)
		return rehearsal_serve(&a->peer, &rec, &a->opt->limits, a->events, e);
	if (!rec.is_pages && rec.type == FERRY__RECORD_TYPE__RECORD_PEER_JOIN)
		return take_join(a, &rec, e);
	if (!rec.is_pages && rec.type == FERRY__RECORD_TYPE__RECORD_PEER_PAGES)
		return take_lane(a, &rec, e);
	if (rec.is_pages || rec.type != FERRY__RECORD_TYPE__RECORD_PEER_HELLO)
		return error_say(e, EPROTO, "the peer began with record %u instead of HELLO",
				 rec.is_pages ? 4 : rec.type);
	r = take_hello(a, &rec, e);
	peer_set_timeout(&a->peer, peer_silence_secs);
	return r < 0 ? r : receive(a, e);
}

/* Nothing of it has run, and nothing is left of it. */
static void give_up(struct arrival *a, const struct error *why)
{
	struct error ignore = ERROR_INIT;
	/* Without a READY the source is not in doubt, and will not ask. */
	bool in_doubt = a->machine.state >= DEST_READY && !a->source_knows;

	if (a->machine.state == DEST_IDLE || a->machine.state >= DEST_STARTING)
		return;
	if (a->pager && a->pager->path)
		pager_discard(a->pager->path);
	if (machine_move(&a->machine, DEST_ABORTED, &ignore) >= 0 && !in_doubt)
		(void)machine_move(&a->machine, DEST_ENDED, &ignore);
	events_log(a->events, 3, "migration %s ends here: %s", a->uuid, why->text);
}

int migrate_serve(int sock, const struct serve_options *o, const struct events *ev, struct error *e)
{
	struct arrival a = {.opt = o,
			    .dir = o->journal_dir ? o->journal_dir : "/run/ferry",
			    .events = ev,
			    .machine = {.state = DEST_IDLE, .events = ev}};
	struct error no_link = ERROR_INIT;
	struct link link;
	int allowed = link_accept(sock, &o->link, GRANT_SEND, &link, e), r = allowed;

	if (link.sock < 0)
		return r;
	if (link.beyond && !link.encrypted && allowed >= 0)
		events_log(ev, 2, "the link is not encrypted (--insecure)");
	if (peer_init(&a.peer, link.sock, allowed < 0 ? &no_link : e) < 0) {
		link_close(&link);
		return error_is(e) ? -e->code : -EIO;
	}
	a.link = &link;
	allowance_claim(&o->limits, link.encrypted ? link.fingerprint : o->address);
	if (allowed >= 0)
		r = serve(&a, e);
	urgent_end();
	/* Skeletons first: the source lets its copy run when it reads our error. */
	restore_free(a.r);
	free(a.cgroup_root);
	if (r < 0) {
		give_up(&a, e);
		peer_send_error(&a.peer, e);
	}
	pager_free(a.pager);
	journal_free(a.machine.journal);
	peer_deinit(&a.peer);
	link_close(&link);
	return r;
}
