/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The whole engine: a session follows the target in rounds as a migration does, and puts its stream into a
 * socket. A thread at the other end lays the pages down in the copy.  After some rounds the target is frozen,
 * the last pages go, and the copy is compared with the memory; then the target is let go, and the rounds go
 * on.
 */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "base/util.h"
#include "compare.h"
#include "engine/source.h"
#include "proto/image.pb-c.h"
#include "shadow.h"
#include "stress.h"

#define MOST_ROUNDS 12 /* between two freezes */

struct receiver {
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	int fd;
	struct shadow *shadow;
	uint32_t seen; /* the last mark that came */
	bool ended;
	struct error e;
};

static void *receive(void *arg)
{
	struct receiver *v = arg;
	struct stream_in *in = NULL;
	struct record rec;
	int r = stream_in_socket(&in, v->fd, &v->e);

	while (r >= 0 && (r = stream_get(in, &rec, &v->e)) > 0) {
		if (rec.is_pages) {
			shadow_apply(v->shadow, &rec.run, rec.data);
		} else if (rec.type == FERRY__RECORD_TYPE__RECORD_INVENTORY) {
			pthread_mutex_lock(&v->lock);
			v->seen = (uint32_t)rec.tid;
			pthread_cond_signal(&v->changed);
			pthread_mutex_unlock(&v->lock);
		}
	}
	stream_in_free(in);
	pthread_mutex_lock(&v->lock);
	v->ended = true;
	pthread_cond_signal(&v->changed);
	pthread_mutex_unlock(&v->lock);
	return NULL;
}

struct run {
	const struct stress_options *o;
	struct stress_result *r;
	struct subject subject;
	struct session *session;
	struct events events;
	struct stream_out *out;
	struct receiver receiver;
	uint32_t mark;
	int sock[2];
};

/* All that was put has arrived. */
static int synchronise(struct run *x, struct error *e)
{
	struct receiver *v = &x->receiver;
	Ferry__Inventory mark = FERRY__INVENTORY__INIT;
	int r = stream_put(x->out, FERRY__RECORD_TYPE__RECORD_INVENTORY, 0, (int32_t)++x->mark, 0, &mark.base,
			   e);

	if (r >= 0)
		r = stream_flush(x->out, e);
	pthread_mutex_lock(&v->lock);
	while (r >= 0 && v->seen != x->mark && !v->ended)
		pthread_cond_wait(&v->changed, &v->lock);
	if (r >= 0 && v->ended)
		r = error_say(e, EIO, "the stream ended: %s", v->e.text);
	pthread_mutex_unlock(&v->lock);
	return r;
}

static void tell(void *ctx, const json_t *event)
{
	cleanup_free char *text = json_dumps(event, JSON_COMPACT);

	fprintf(stderr, "%s: %s\n", (const char *)ctx, text);
}

static int open_session(struct run *x, struct error *e)
{
	struct session_options so;

	session_options_init(&so);
	so.pid = x->subject.pid;
	so.backend = x->o->backend;
	so.backend_dir = x->o->backend_dir;
	so.freeze_timeout_ms = 30000;
	subject_pause(&x->subject, true); /* it may be tracing */
	x->events = (struct events){.emit = x->o->verbose ? tell : NULL, .ctx = (void *)x->subject.way->name};
	int r = session_open(&x->session, &so, &x->events, e);

	subject_pause(&x->subject, false);
	return r;
}

static int open_stream(struct run *x, struct error *e)
{
	struct receiver *v = &x->receiver;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, x->sock) < 0)
		return error_set(e, errno, "socketpair");
	int r = stream_out_socket(&x->out, x->sock[0], e);

	if (r < 0)
		return r;
	*v = (struct receiver){.fd = x->sock[1], .shadow = shadow_new()};
	pthread_mutex_init(&v->lock, NULL);
	pthread_cond_init(&v->changed, NULL);
	if (pthread_create(&v->thread, NULL, receive, v) != 0)
		return error_say(e, EAGAIN, "pthread_create");
	return 0;
}

/* A round with the target running, after it has done something. */
static int warm_round(struct run *x, struct error *e)
{
	if (!subject_progress(&x->subject))
		return error_say(e, ETIME, "the target %s",
				 x->subject.died[0] ? x->subject.died : "has ended, or hangs");
	int r = session_round(x->session, x->out, false, e);

	x->r->rounds += r >= 0;
	return r;
}

static bool any_sure(const struct memory *m)
{
	for (size_t i = 0; i < m->n_objects; i++)
		if (m->objects[i]->sure)
			return true;
	return false;
}

/* Frozen: the last pages, all of the state where the way needs that, and the comparison. */
static int last_round(struct run *x, struct error *e)
{
	struct session *s = x->session;
	struct error undo = ERROR_INIT;
	struct comparison c = {.shadow = x->receiver.shadow, .text = x->r->text, .size = sizeof(x->r->text)};

	subject_pause(&x->subject, true);
	int r = session_freeze(s, e);

	if (r < 0) {
		subject_pause(&x->subject, false);
		return r;
	}
	r = stress_last_pages(s, x->out, e);
	x->r->sure += r >= 0 && any_sure(s->memory);
	if (r >= 0)
		r = synchronise(x, e);
	subject_relax(x->o->cgroup, true);
	if (r >= 0)
		r = compare_processes(&c, s, e);
	if (r >= 0 && (x->subject.way->flags & WAY_STATE)) {
		r = session_final(s, x->out, false, e);
		if (r >= 0)
			r = synchronise(x, e);
	}
	if (r >= 0)
		r = compare_objects(&c, s, e);
	subject_relax(x->o->cgroup, false);
	int u = session_end(s, SESSION_RUN, r < 0 ? &undo : e);

	subject_pause(&x->subject, false);
	x->r->rounds += r >= 0;
	x->r->compares += r >= 0;
	x->r->compared += c.compared;
	x->r->different += c.different;
	return r < 0 ? r : u;
}

static int follow(struct run *x, struct error *e)
{
	unsigned seed = x->o->seed;
	int r = 0;

	while (r >= 0 && x->r->rounds < x->o->rounds && !x->r->different) {
		unsigned n = 1 + (unsigned)rand_r(&seed) % MOST_ROUNDS;

		for (unsigned i = 0; i < n && r >= 0; i++)
			r = warm_round(x, e);
		if (r >= 0)
			r = last_round(x, e);
		if (x->o->verbose && r >= 0)
			fprintf(stderr, "%s: %u rounds\n", x->subject.way->name, x->r->rounds);
	}
	return r;
}

static void close_all(struct run *x)
{
	struct error ignore = ERROR_INIT;

	session_close(x->session);
	if (x->receiver.shadow) {
		stream_finish(x->out, &ignore);
		shutdown(x->sock[0], SHUT_WR);
		pthread_join(x->receiver.thread, NULL);
		struct shadow_counts n = shadow_counts(x->receiver.shadow);

		x->r->reported = n.pages;
		x->r->needless = n.same;
		shadow_free(x->receiver.shadow);
		close(x->sock[0]);
		close(x->sock[1]);
	}
	stream_out_free(x->out);
}

static void refused(struct run *x, int code, const struct error *e)
{
	const char *want = x->subject.way->refusal;

	x->r->verdict = STRESS_FAILED;
	if (code >= 0) {
		snprintf(x->r->text, sizeof(x->r->text), "it was not refused");
	} else if (!strstr(e->text, want) || x->r->rounds) {
		snprintf(x->r->text, sizeof(x->r->text),
			 "refused after %u rounds, with \"%.400s\" and not \"%s\"", x->r->rounds, e->text,
			 want);
	} else if (!subject_progress(&x->subject)) {
		snprintf(x->r->text, sizeof(x->r->text), "refused, but the target does not go on");
	} else {
		x->r->verdict = STRESS_REFUSED;
		snprintf(x->r->text, sizeof(x->r->text), "%.590s", e->text);
	}
}

/* Few rounds are over before it can be. */
static void was_sure(struct run *x)
{
	struct stress_result *res = x->r;
	const struct dirty_backend_ops *ops = x->session->memory->backend.ops;

	if (res->verdict != STRESS_EQUAL || !ops || !ops->shared_sure)
		return;
	if (res->sure || (x->subject.way->flags & WAY_SURE))
		snprintf(res->text, sizeof(res->text), "shared memory not compared by ferry in %u of %u",
			 res->sure, res->compares);
	if (!res->sure && res->rounds >= 500 && (x->subject.way->flags & WAY_SURE))
		res->verdict = STRESS_FAILED;
}

void stress_engine(const struct stress_options *o, const struct way_info *way, struct stress_result *res)
{
	struct run x = {.o = o, .r = res};
	struct error e = ERROR_INIT;

	*res = (struct stress_result){.verdict = STRESS_FAILED};
	int r = subject_start(&x.subject, way, o->cgroup, res->text, sizeof(res->text));

	if (r > 0)
		res->verdict = STRESS_SKIPPED;
	if (r == 0) {
		r = open_session(&x, &e);
		if (way->flags & WAY_REFUSED) {
			refused(&x, r, &e);
		} else {
			if (r >= 0)
				r = open_stream(&x, &e);
			if (r >= 0)
				r = follow(&x, &e);
			if (r >= 0)
				res->verdict = res->different ? STRESS_DIFFERS : STRESS_EQUAL;
			if (r >= 0)
				was_sure(&x);
			else
				snprintf(res->text, sizeof(res->text), "%.30s: %.540s", e.phase, e.text);
		}
	} else if (!res->text[0]) {
		snprintf(res->text, sizeof(res->text), "cannot start the target");
	}
	close_all(&x);
	subject_end(&x.subject);
}
