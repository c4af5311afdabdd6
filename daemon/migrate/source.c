/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The source of a migration, and the commit.
 *
 * Up to COMMIT every failure ends with the target running here. From the moment COMMIT may have left this
 * machine, only the destination knows: the copy here stays frozen until it says `running` (ours is killed) or
 * `aborted` (ours runs on).  Should this very process die in between, the kernel would let the target go:
 * therefore a SIGSTOP waits behind the freeze, and the copy stops instead of running beside the other one.
 */
#include "migrate/migrate.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>
#include <uuid/uuid.h>

#include "base/urgent.h"
#include "base/util.h"
#include "engine/source.h"
#include "freeze/rescue.h"
#include "migrate/deadline.h"
#include "migrate/doubt.h"
#include "migrate/hello.h"
#include "migrate/join.h"
#include "migrate/look.h"
#include "migrate/peer.h"
#include "migrate/serve_pages.h"
#include "state/memory/named.h"
#include "state/sockets/tcp.h"

struct migration {
	const struct migrate_options *opt;
	struct session_options session;
	const struct events *events;
	struct session *s;
	struct link link;
	struct peer peer;
	struct machine machine;
	char uuid[37];
	bool tell_freeze; /* the destination wants to know */
	bool asked;       /* the link is of no use any more */
	uint64_t rtt_ns, sent_bytes;
	Ferry__PeerReady *ready;
	bool in_doubt; /* told to stop before the destination answered */
};

static bool wants_post_copy(const struct migration *m)
{
	return m->session.post_copy_after || m->session.on_stall == ON_STALL_POSTCOPY;
}

/* The other side cannot start it before all of its pages are there. */
static int forgo_post_copy(struct migration *m, struct error *e)
{
	if (!m->opt->post_copy_if_possible)
		return error_say(
			e, ENOTSUP,
			"%s cannot start a program whose pages are still on their way (no userfaultfd)",
			m->opt->to);
	events_log(
		m->events, 2,
		"%s cannot start a program whose pages are still on their way (no userfaultfd): if rounds do "
		"not get smaller the target is stopped for longer (--on-stall stop)",
		m->opt->to);
	m->session.on_stall = ON_STALL_STOP;
	return 0;
}

static int note_queued(const struct migration *m, const struct record *rec, struct error *e)
{
	ProtobufCMessage *msg;
	int r = record_unpack(rec, &ferry__peer_queued__descriptor, &msg, e);

	if (r < 0)
		return r;
	events_emit(m->events, json_pack("{s:s,s:i}", "event", "queued", "position",
					 (int)((Ferry__PeerQueued *)msg)->position));
	protobuf_c_message_free_unpacked(msg, NULL);
	return 0;
}

/* Others may come first: then the destination says so, again and again. */
static int expect_hello(struct migration *m, uint64_t t0, ProtobufCMessage **ret, struct error *e)
{
	struct record rec;
	int r;

	while ((r = peer_next(&m->peer, &rec, e)) >= 0) {
		if (!m->rtt_ns)
			m->rtt_ns = now_ns() - t0;
		if (!rec.is_pages && rec.type == FERRY__RECORD_TYPE__RECORD_PEER_HELLO)
			return record_unpack(&rec, &ferry__peer_hello__descriptor, ret, e);
		if (rec.is_pages || rec.type != FERRY__RECORD_TYPE__RECORD_PEER_QUEUED)
			return error_say(e, EPROTO, "the other side sent record %u where HELLO was due",
					 rec.is_pages ? 4 : rec.type);
		r = note_queued(m, &rec, e);
		if (r < 0)
			return r;
	}
	return r;
}

static int hello(struct migration *m, struct error *e)
{
	Ferry__PeerHello h = FERRY__PEER_HELLO__INIT;
	ProtobufCMessage *reply = NULL;
	char host[256];

	hello_fill(&h, host, "");
	hello_fill_source(&h, &m->session);
	h.uuid = m->uuid;
	h.post_copy = wants_post_copy(m);
	h.streams = m->opt->streams;
	peer_set_timeout(&m->peer, PEER_HELLO_SECS);
	uint64_t t0 = now_ns();
	int r = peer_send(&m->peer, FERRY__RECORD_TYPE__RECORD_PEER_HELLO, &h.base, e);

	if (r >= 0)
		r = expect_hello(m, t0, &reply, e);
	if (r < 0)
		return error_prefix(e, "%s", m->opt->to);
	const Ferry__PeerHello *there = (const Ferry__PeerHello *)reply;

	r = hello_check(there, m->opt->to, e);
	/* What a program could do to such memory meanwhile is in docs/limits.md: only where somebody asked
	 * for it. */
	m->session.leave_shared = there->post_copy_shared && !m->opt->post_copy_if_possible;
	if (r >= 0 && wants_post_copy(m) && !there->post_copy)
		r = forgo_post_copy(m, e);
	if (r >= 0) {
		journal_set(m->machine.journal, m->opt->to, m->opt->link.insecure, there->life);
		journal_add_process(m->machine.journal, m->opt->session.pid, 0, true);
		r = machine_move(&m->machine, SOURCE_COPYING, e);
	}
	if (r >= 0 && m->opt->streams > 1 && there->streams > 1)
		r = join_dial(&m->link, &m->peer, MIN(there->streams, m->opt->streams), m->opt->to,
			      &m->opt->link, m->uuid, &there->join_secret, e);
	else if (r >= 0 && m->opt->streams > 1)
		events_log(m->events, 2, "%s takes one connection only", m->opt->to);
	if (r >= 0) {
		stream_out_compress(m->peer.out, m->opt->session.compress, there->codecs,
				    m->opt->session.max_bandwidth);
		if (there->copies)
			stream_out_allow_copies(m->peer.out);
		m->tell_freeze = there->freeze;
	}
	protobuf_c_message_free_unpacked(reply, NULL);
	peer_set_timeout(&m->peer, peer_silence_secs);
	return r;
}

/* A round is over when its pages are in place over there: that time, not the filling of socket buffers, is
 * its duration. */
static int round_ack(void *ctx, unsigned n, struct error *e)
{
	struct migration *m = ctx;
	Ferry__PeerRound end = FERRY__PEER_ROUND__INIT;

	end.n = n;
	int r = peer_send(&m->peer, FERRY__RECORD_TYPE__RECORD_PEER_ROUND_END, &end.base, e);

	if (r >= 0)
		r = peer_expect(&m->peer, FERRY__RECORD_TYPE__RECORD_PEER_ROUND_DONE, NULL, NULL, e);
	if (r >= 0)
		stream_out_arrived(m->peer.out);
	return r;
}

static void signal_all(struct session *s, int sig)
{
	for (size_t i = 0; i < s->tree->n; i++)
		if (s->tree->procs[i]->state == PROCESS_ALIVE)
			kill(s->tree->procs[i]->pid, sig);
}

/* Who comes after us must find the copy. */
static void list_processes(struct migration *m)
{
	journal_clear_processes(m->machine.journal);
	for (size_t i = 0; i < m->s->tree->n; i++) {
		const struct process *p = m->s->tree->procs[i];

		if (p->state != PROCESS_ZOMBIE)
			journal_add_process(m->machine.journal, p->pid, p->start_time,
					    p->state == PROCESS_ALIVE);
	}
}

static void add_address(void *ctx, const char *local, const char *peer)
{
	journal_add_address(ctx, local, peer);
}

static void free_packets(ProtobufCBinaryData *list, size_t n)
{
	for (size_t i = 0; i < n; i++)
		free(list[i].data);
	free(list);
}

/* With pages missing the other side waits for packets only if there may be some. */
static bool packets_follow(const struct migration *m)
{
	return m->machine.journal->left && tcp_has_packets(&m->s->capture);
}

/* It runs there: what has come here for its TCP connections while it was started. */
static void send_packets(struct migration *m)
{
	Ferry__PeerPackets p = FERRY__PEER_PACKETS__INIT;
	struct error ignore = ERROR_INIT;

	tcp_take_packets(&m->s->capture, &p.packets, &p.n_packets);
	if (p.n_packets || packets_follow(m))
		(void)peer_send(&m->peer, FERRY__RECORD_TYPE__RECORD_PEER_PACKETS, &p.base, &ignore);
	free_packets(p.packets, p.n_packets);
}

/* COMMIT has left, perhaps. Returns 1 when the target runs over there, 0 when it never will; else it is not
 * known. */
static int hand_over(struct migration *m, struct error *link, struct error *e)
{
	Ferry__PeerCommit c = FERRY__PEER_COMMIT__INIT;

	c.uuid = m->uuid;
	c.more = packets_follow(m);
	tcp_take_packets(&m->s->capture, &c.packets, &c.n_packets);
	int r = peer_send(&m->peer, FERRY__RECORD_TYPE__RECORD_PEER_COMMIT, &c.base, link);

	free_packets(c.packets, c.n_packets);
	if (r >= 0)
		r = peer_expect(&m->peer, FERRY__RECORD_TYPE__RECORD_PEER_RUNNING, NULL, NULL, link);
	if (r >= 0)
		return 1;
	events_log(m->events, 2, "no RUNNING after the commit: %s", link->text);
	m->asked = true;
	r = machine_move(&m->machine, SOURCE_ASKING, e);
	return r < 0 ? r : doubt_ask(m->machine.journal, &m->opt->link, m->events, e);
}

/* It runs there, with pages that are still here. If we end before it has them all, the next one goes on. */
static int serve(struct migration *m, struct error *e)
{
	struct error trouble = ERROR_INIT;

	m->s->t_running = now_ns();
	urgent_end();
	int r = machine_move(&m->machine, SOURCE_SERVING, e);

	if (r < 0)
		return r;
	/* They are in use over there. */
	if (journal_drop_addresses(m->machine.journal, &trouble) < 0)
		events_log(m->events, 1, "%s", trouble.text);
	events_emit(m->events, json_pack("{s:s,s:f,s:I}", "event", "running", "downtime_ms",
					 (m->s->t_running - m->s->t_freeze) / 1e6, "left",
					 (json_int_t)m->machine.journal->left));
	m->sent_bytes = stream_out_bytes(m->peer.out) + m->machine.journal->left * PAGE_SIZE_BYTES;
	peer_deinit(&m->peer);
	if (m->asked)
		link_close(&m->link);
	r = serve_pages(m->machine.journal, &m->link, &m->opt->link, m->events, e);
	m->asked = true; /* that connection is gone */
	m->in_doubt = r < 0;
	if (r == -ECANCELED) {
		error_clear(e);
		return error_say(e, EINPROGRESS,
				 "the program runs at %s, but pages of it are still here, in its stopped "
				 "copy: \"ferry "
				 "resume %s\" (or ferryd) serves them",
				 m->opt->to, m->uuid);
	}
	return r < 0 ? r : machine_move(&m->machine, SOURCE_MOVED, e);
}

/* The SIGSTOP waits, so that it cannot run with connections in repair mode, which it would see. */
static void silence_connections(struct migration *m)
{
	struct error trouble = ERROR_INIT;

	rescue_note_repair(NULL);
	if (tcp_silence(&m->s->capture, &trouble) < 0)
		events_log(m->events, 1, "%s", trouble.text);
}

/* Frozen, everything sent. Returns 0 when the target runs over there, else it must run on here, or (in_doubt)
 * stand still. */
static int commit(struct migration *m, struct error *e)
{
	struct error link = ERROR_INIT;
	char kept[TCP_HOLD_NAME];

	error_phase(e, "wait for ready");
	int r = peer_expect(&m->peer, FERRY__RECORD_TYPE__RECORD_PEER_READY, &ferry__peer_ready__descriptor,
			    (ProtobufCMessage **)&m->ready, e);

	if (r >= 0)
		r = hooks_run(m->opt->session.hooks, "post-dump", m->s->root, e);
	if (r >= 0)
		r = job_check_abort(e);
	if (r < 0)
		return r;
	events_emit(m->events, json_pack("{s:s}", "event", "commit"));
	error_phase(e, "commit");
	list_processes(m);
	tcp_each_moving(&m->s->capture, add_address, m->machine.journal);
	journal_set_left(m->machine.journal, session_left_pages(m->s));
	/* From here on there is no way back. */
	deadline_clear();
	r = job_check_abort(e);
	tcp_kept_name(kept, m->uuid);
	if (r >= 0)
		r = tcp_keep(&m->s->capture, kept, e);
	if (r >= 0)
		r = machine_move(&m->machine, SOURCE_COMMITTING, e);
	if (r < 0)
		return r;
	signal_all(m->s, SIGSTOP);
	silence_connections(m);
	r = hand_over(m, &link, e);
	if (r < 0) {
		m->in_doubt = true;
		error_clear(e);
		return error_say(e, EINPROGRESS,
				 "it is not known yet whether the program runs at %s: its copy here is "
				 "stopped until \"ferry resume %s\" (or ferryd) has found out",
				 m->opt->to, m->uuid);
	}
	if (r == 1 && !m->asked && (!m->machine.journal->left || packets_follow(m)))
		send_packets(m);
	if (r == 1)
		return m->machine.journal->left ? serve(m, e) : machine_move(&m->machine, SOURCE_MOVED, e);
	signal_all(m->s, SIGCONT);
	return error_say(e, ECONNABORTED, "the destination did not start the program (%s); it runs on here",
			 link.text[0] ? link.text : "link lost");
}

static int tell_missing(struct migration *m, struct error *e)
{
	int r = 0;

	session_leave_end(m->s);
	for (size_t i = 0; i < m->s->tree->n && r >= 0; i++) {
		const struct memory_process *mp = m->s->tree->procs[i]->data;
		Ferry__PeerMissing list = FERRY__PEER_MISSING__INIT;

		if (!mp || !mp->left.n)
			continue;
		/* Pairs of start and end, as they lie there. */
		list.ranges = (uint64_t *)mp->left.r;
		list.n_ranges = 2 * mp->left.n;
		r = stream_put(m->peer.out, FERRY__RECORD_TYPE__RECORD_PEER_MISSING, mp->pid, 0, 0,
			       &list.base, e);
	}
	return r;
}

static int freeze_and_send(struct migration *m, struct error *e)
{
	Ferry__PeerFinal f = FERRY__PEER_FINAL__INIT;

	stream_out_hurry(m->peer.out);
	int r = session_final(m->s, m->peer.out, true, e);

	f.pages = m->s->total.pages;
	if (r >= 0)
		r = tell_missing(m, e);
	if (r >= 0)
		r = peer_send(&m->peer, FERRY__RECORD_TYPE__RECORD_PEER_FINAL, &f.base, e);
	/* While the destination builds, take the parasite out: whatever happens from here on, the copy is as
	 * it was. */
	if (r >= 0)
		r = capture_undo(m->s, e);
	if (r >= 0)
		m->s->injected = false;
	return r < 0 ? r : machine_move(&m->machine, SOURCE_SENT, e);
}

static int rounds(struct migration *m, struct error *e)
{
	m->s->costs.rtt_ns = m->rtt_ns;
	int r = session_put_inventory(m->s, m->peer.out, false, e);

	if (r >= 0)
		r = look_until_content(&m->peer, m->s, false, e);
	if (r >= 0)
		r = session_rounds(m->s, m->peer.out, true, round_ack, m, e);
	return r;
}

/* It goes on here, or stands still until the matter is decided. */
static void stay(struct migration *m, bool frozen)
{
	struct error undo = ERROR_INIT;

	if (m->in_doubt) {
		tcp_forsake(&m->s->capture);
		session_end(m->s, SESSION_RUN, &undo);
		return;
	}
	if (frozen)
		session_end(m->s, SESSION_RUN, &undo);
	(void)machine_move(&m->machine, SOURCE_STAYED, &undo);
	if (m->asked)
		doubt_done(m->machine.journal, &m->opt->link);
	(void)machine_move(&m->machine, SOURCE_ENDED, &undo);
}

static int leave(struct migration *m, struct error *e)
{
	Ferry__PeerDone d = FERRY__PEER_DONE__INIT;
	struct error link = ERROR_INIT;

	session_emit_done(m->s, "migrate", m->peer.out ? stream_out_bytes(m->peer.out) : m->sent_bytes);
	error_phase(e, "end the source's copy");
	int r = session_end(m->s, SESSION_KILL, e);

	if (r < 0)
		return r;
	/* It runs, whether or not this works. */
	memory_remove_moved(&m->s->capture, m->ready->made_objects, m->ready->n_made_objects);
	if (journal_drop_addresses(m->machine.journal, &link) < 0 || tcp_gone(m->uuid, &link) < 0)
		events_log(m->events, 1, "%s", link.text);
	error_clear(&link);
	d.uuid = m->uuid;
	if (m->asked || peer_send(&m->peer, FERRY__RECORD_TYPE__RECORD_PEER_DONE, &d.base, &link) < 0)
		doubt_done(m->machine.journal, &m->opt->link);
	return machine_move(&m->machine, SOURCE_ENDED, e);
}

static int tell_freeze(struct migration *m, struct error *e)
{
	Ferry__PeerRound rounds = FERRY__PEER_ROUND__INIT;

	rounds.n = m->s->n_rounds;
	return peer_send(&m->peer, FERRY__RECORD_TYPE__RECORD_PEER_FREEZE, &rounds.base, e);
}

static int run(struct migration *m, struct error *e)
{
	bool frozen = false;
	int r = machine_move(&m->machine, SOURCE_HELLO, e);

	if (r >= 0)
		r = hello(m, e);
	if (r >= 0)
		r = session_open(&m->s, &m->session, m->events, e);
	if (r >= 0) {
		deadline_set(m->opt->time_limit_ms,
			     "the rounds took longer than --time-limit; the target runs on");
		r = deadline_explain(rounds(m, e), e);
	}
	if (r >= 0) {
		deadline_set(m->opt->session.max_downtime_ms,
			     "the target was stopped for as long as --max-downtime allows, and was not there "
			     "yet; it "
			     "runs on here");
		if (m->tell_freeze && m->s->memory->backend.ops) /* see session_freeze */
			r = tell_freeze(m, e);
	}
	if (r >= 0)
		r = session_freeze(m->s, e);
	if (r >= 0) {
		frozen = true;
		r = machine_move(&m->machine, SOURCE_FROZEN, e);
	}
	if (r >= 0)
		r = freeze_and_send(m, e);
	if (r >= 0)
		r = commit(m, e);
	if (r >= 0)
		return leave(m, e);
	r = deadline_explain(r, e);
	bool before_commit = m->machine.state < SOURCE_COMMITTING;

	stay(m, frozen);
	if (before_commit) {
		peer_explain(&m->peer, e);
		peer_send_error(&m->peer, e);
	}
	return r;
}

int migrate_run(const struct migrate_options *o, const struct events *ev, struct error *e)
{
	struct migration m = {.opt = o,
			      .session = o->session,
			      .events = ev,
			      .link = LINK_INIT,
			      .machine = {.state = SOURCE_IDLE, .events = ev}};
	uuid_t u;

	uuid_generate(u);
	uuid_unparse_lower(u, m.uuid);
	error_phase(e, "connect");
	m.machine.journal = journal_new(o->journal_dir ? o->journal_dir : "/run/ferry", SIDE_SOURCE, m.uuid);
	int r = tree_check_root(o->session.pid, e);

	if (r >= 0)
		r = link_connect(o->to, &o->link, GRANT_RECEIVE, &m.link, e);
	if (r >= 0 && m.link.beyond && !m.link.encrypted)
		events_log(ev, 2, "the link to %s is not encrypted (--insecure)", o->to);
	if (r >= 0)
		r = peer_init(&m.peer, m.link.sock, e);
	if (r >= 0)
		r = run(&m, e);
	session_close(m.s);
	if (m.ready)
		ferry__peer_ready__free_unpacked(m.ready, NULL);
	peer_deinit(&m.peer);
	link_close(&m.link);
	journal_free(m.machine.journal);
	return r;
}
