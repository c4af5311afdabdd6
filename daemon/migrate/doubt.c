/* SPDX-License-Identifier: Apache-2.0 */
#include "migrate/doubt.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/util.h"
#include "migrate/peer.h"
#include "migrate/serve_pages.h"
#include "state/sockets/tcp.h"

enum verdict { PENDING, RUNNING, ABORTED, UNKNOWN };

static enum verdict read_answer(const struct journal *j, const Ferry__PeerAnswer *a)
{
	if (!strcmp(a->state, "running") || !strcmp(a->state, "fetching"))
		return RUNNING;
	if (!strcmp(a->state, "aborted"))
		return ABORTED;
	if (strcmp(a->state, "unknown"))
		return PENDING;
	/* What was there has ended with the machine. With the machine still the same one its journal has been
	 * lost, and nobody but a person can know. */
	return j->there && *a->life && strcmp(j->there, a->life) ? ABORTED : UNKNOWN;
}

/* A new connection, with time limits; to be closed also after a failure. */
static int call(const struct journal *j, const struct link_options *o, struct link *link, struct peer *p,
		struct error *e)
{
	struct link_options mine = {.keys_dir = o->keys_dir, .insecure = o->insecure || j->insecure};

	*p = (struct peer){.sock = -1};
	int r = link_connect(j->to, &mine, GRANT_RECEIVE, link, e);

	if (r >= 0)
		r = peer_init(p, link->sock, e);
	if (r >= 0)
		peer_set_timeout(p, PEER_HELLO_SECS);
	return r;
}

static enum verdict ask_once(const struct journal *j, const struct link_options *o, struct error *e)
{
	Ferry__PeerQuery q = FERRY__PEER_QUERY__INIT;
	ProtobufCMessage *reply = NULL;
	enum verdict v = PENDING;
	struct link link = LINK_INIT;
	struct peer p;
	int r = call(j, o, &link, &p, e);

	q.uuid = (char *)j->uuid;
	if (r >= 0)
		r = peer_send(&p, FERRY__RECORD_TYPE__RECORD_PEER_QUERY, &q.base, e);
	if (r >= 0)
		r = peer_expect(&p, FERRY__RECORD_TYPE__RECORD_PEER_ANSWER, &ferry__peer_answer__descriptor,
				&reply, e);
	if (r >= 0) {
		v = read_answer(j, (const Ferry__PeerAnswer *)reply);
		protobuf_c_message_free_unpacked(reply, NULL);
	}
	peer_deinit(&p);
	link_close(&link);
	return v;
}

int doubt_ask(const struct journal *j, const struct link_options *o, const struct events *ev, struct error *e)
{
	for (unsigned tries = 0;; tries++) {
		struct error trouble = ERROR_INIT;
		enum verdict v = ask_once(j, o, &trouble);

		if (v == RUNNING || v == ABORTED)
			return v == RUNNING;
		if (tries % 10 == 0)
			events_log(ev, 2, "asking %s what became of migration %s: %s", j->to, j->uuid,
				   v == UNKNOWN         ? "it does not know any more (see ferry resume)"
				   : error_is(&trouble) ? trouble.text
							: "not decided yet");
		if (job_check_abort(e) < 0)
			return -ECANCELED;
		sleep(1);
	}
}

void doubt_done(const struct journal *j, const struct link_options *o)
{
	Ferry__PeerDone d = FERRY__PEER_DONE__INIT;
	struct error ignore = ERROR_INIT;
	struct link link = LINK_INIT;
	struct record rec;
	struct peer p;

	if (!j->to)
		return;
	int r = call(j, o, &link, &p, &ignore);

	d.uuid = (char *)j->uuid;
	if (r >= 0)
		r = peer_send(&p, FERRY__RECORD_TYPE__RECORD_PEER_DONE, &d.base, &ignore);
	while (r >= 0) /* it hangs up when it has read that */
		r = stream_get(p.in, &rec, &ignore) > 0 ? 0 : -1;
	peer_deinit(&p);
	link_close(&link);
}

/* Its machine has been restarted since, so that what ran there has ended. */
static int must_have_ended(const struct journal *j, const struct link_options *o, struct error *e)
{
	struct error trouble = ERROR_INIT;
	enum verdict v = ask_once(j, o, &trouble);

	if (v == ABORTED)
		return 0;
	if (v == RUNNING)
		return error_say(e, EINVAL, "migration %s: the program runs at %s, it cannot run on here",
				 j->uuid, j->to);
	return error_say(
		e, EAGAIN,
		"migration %s: %s does not say that it has been restarted since (%s), so the program may "
		"still run there: it cannot run on here",
		j->uuid, j->to, error_is(&trouble) ? trouble.text : "it does not know of it");
}

/* --- the successor --------------------------------------------------------------------------------- */

static int ask_for_now(const struct journal *j, const struct link_options *o, struct error *e)
{
	struct error trouble = ERROR_INIT;
	enum verdict v = ask_once(j, o, &trouble);

	if (v == RUNNING || v == ABORTED)
		return v == RUNNING;
	return error_say(e, EAGAIN, "%s has no answer for migration %s: %s", j->to, j->uuid,
			 v == UNKNOWN ? "it does not know of it" : trouble.text);
}

static int decide(struct machine *m, enum doubt_decision how, const struct link_options *o, struct error *e)
{
	struct journal *j = m->journal;
	int running;

	if (m->state == SOURCE_COMMITTING) {
		int r = machine_move(m, SOURCE_ASKING, e);

		if (r < 0)
			return r;
	}
	if (m->state != SOURCE_ASKING)
		return 0;
	if (!journal_alive(j))
		running = 1; /* nothing is left here that could run on */
	else if (how == DOUBT_ASK)
		running = doubt_ask(j, o, m->events, e);
	else if (how == DOUBT_ASK_ONCE)
		running = ask_for_now(j, o, e);
	else
		running = how == DOUBT_THERE || how == DOUBT_GIVE_UP;
	if (running < 0)
		return running;
	return machine_move(m, !running ? SOURCE_STAYED : j->left ? SOURCE_SERVING : SOURCE_MOVED, e);
}

/* It runs there, and needs what is here. */
static int serve(struct machine *m, enum doubt_decision how, const struct link_options *o, struct error *e)
{
	struct journal *j = m->journal;
	struct link none = LINK_INIT;
	int r = 0;

	if (m->state != SOURCE_SERVING)
		return 0;
	if (how == DOUBT_HERE)
		return error_say(
			e, EINVAL,
			"migration %s: the program has run at %s since, it cannot run on here (if that "
			"machine has been restarted: --here --force goes back to what it was before)",
			j->uuid, j->to);
	if (how == DOUBT_GO_BACK) {
		struct error trouble = ERROR_INIT;

		r = must_have_ended(j, o, e);
		if (r >= 0 && journal_take_addresses(j, &trouble) < 0)
			events_log(m->events, 1, "%s", trouble.text);
		if (r >= 0)
			events_log(m->events, 2,
				   "migration %s: what the program did at %s is lost, it goes on as it was "
				   "before",
				   j->uuid, j->to);
		return r < 0 ? r : machine_move(m, SOURCE_STAYED, e);
	}
	if (how == DOUBT_THERE)
		return error_say(
			e, EINVAL,
			"migration %s: up to %llu pages of the program are only here, and would be lost: it "
			"waits for them there (ferry resume %s serves them; --there --force gives them up)",
			j->uuid, (unsigned long long)j->left, j->uuid);
	/* They are in use over there. */
	r = journal_drop_addresses(j, e);
	if (r >= 0 && how != DOUBT_GIVE_UP)
		r = serve_pages(j, &none, o, m->events, e);
	else if (r >= 0)
		events_log(m->events, 2, "migration %s: pages that had not been fetched are lost", j->uuid);
	return r < 0 ? r : machine_move(m, SOURCE_MOVED, e);
}

int doubt_settle(const char *dir, const char *uuid, enum doubt_decision how, const struct link_options *o,
		 const struct events *ev, struct error *e)
{
	struct journal *j;

	error_phase(e, "settle");
	int r = journal_open(&j, dir, SIDE_SOURCE, uuid, e);

	if (r == -ENOENT) {
		error_clear(e);
		return error_say(e, ENOENT, "no migration %s waits for a decision here", uuid);
	}
	if (r < 0)
		return r;
	if (j->fd < 0) {
		r = error_say(e, EBUSY, "somebody is at work on migration %s (see ferry status)", uuid);
		journal_free(j);
		return r;
	}
	struct machine m = {.state = j->state, .journal = j, .events = ev};

	r = decide(&m, how, o, e);
	if (r >= 0)
		r = serve(&m, how, o, e);
	bool moved = m.state == SOURCE_MOVED, stayed = m.state == SOURCE_STAYED;

	if (r >= 0 && moved)
		r = journal_kill(j, e);
	if (r >= 0 && moved)
		r = journal_drop_addresses(j, e);
	if (r >= 0 && stayed)
		journal_let_go(j);
	if (r >= 0)
		r = tcp_gone(j->uuid, e);
	if (r >= 0 && (moved || stayed))
		doubt_done(j, o);
	/* `copying`: its process died before the commit, which let the target go. */
	if (r >= 0)
		r = machine_move(&m, SOURCE_ENDED, e);
	journal_free(j);
	return r < 0 ? r : moved;
}

int doubt_see_through(const char *dir, const char *uuid, enum doubt_decision how,
		      const struct link_options *o, const struct events *ev, struct error *e)
{
	struct journal *seen;
	int r = journal_open(&seen, dir, SIDE_SOURCE, uuid, e);

	if (r == -ENOENT) {
		error_clear(e);
		return error_say(e, ENOENT, "no migration %s waits for a decision here", uuid);
	}
	if (r < 0)
		return r;
	if (seen->fd >= 0)
		close(TAKE_FD(seen->fd));
	while ((r = doubt_settle(dir, uuid, how, o, ev, e)) == -EBUSY) {
		error_clear(e);
		usleep(50000);
		if (job_check_abort(e) < 0)
			break;
	}
	if (r == -ENOENT) {
		error_clear(e);
		r = !journal_alive(seen);
	}
	journal_free(seen);
	return r;
}

struct search {
	pid_t target; /* 0: any that nobody is at work on */
	char *uuid;
};

static int is_wanted(void *ctx, const char *dir, const char *uuid)
{
	const struct search *s = ctx;
	struct error ignore = ERROR_INIT;
	struct journal *j;

	if (journal_open(&j, dir, SIDE_SOURCE, uuid, &ignore) < 0)
		return 0;
	bool found = !s->target && j->fd >= 0;

	for (size_t i = 0; i < j->n_procs && !found; i++)
		found = j->procs[i].pid == s->target;
	if (found)
		memcpy(s->uuid, j->uuid, sizeof(j->uuid));
	journal_free(j);
	return found;
}

bool doubt_find_left(const char *dir, char ret_uuid[37])
{
	return journal_each(dir, SIDE_SOURCE, is_wanted, &(struct search){0, ret_uuid});
}

bool doubt_find_target(const char *dir, pid_t target, char ret_uuid[37])
{
	return journal_each(dir, SIDE_SOURCE, is_wanted, &(struct search){target, ret_uuid});
}
