/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pages are asked for over two connections: one for those that threads wait for, one for the rest, so that a
 * fault does not queue behind what is fetched ahead.  Of the latter only so much is under way as keeps the
 * link busy.  A connection that breaks is dropped; the source comes again; what was asked for over it is
 * asked for anew.  Nothing is asked for that is there.
 */
#include "migrate/fetch.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include "base/util.h"
#include "engine/latency.h"
#include "migrate/lane.h"

#define LANES       2
#define AT_ONCE     16 /* pages in one request */
#define FEWEST      32 /* pages under way over the second lane: at least, and at most */
#define MOST        512
#define QUEUE_NS    2000000u /* what it may wait for others */
#define PROGRESS_MS 200
#define SECOND_MS   2000 /* so long the rest waits for a lane of its own */
#define DIAL_MS     1000 /* from one attempt to the next */
#define LINGER_MS   2000 /* for the source to hear that it is over */

struct fetch {
	struct pager *p;
	const struct fetch_options *o;
	struct peer lanes[LANES]; /* sock -1: down */
	int listener;
	uint64_t under_way; /* pages asked for over the second lane */
	/*
	 * How many that may be.  A fault shares the link with them: they are as many as keep it busy, and no
	 * more.  As long as a request comes back about as soon as on an idle link there may be more: twice as
	 * many each time until the first one was late (over a long way the first few are far too few), then a
	 * little.
	 */
	uint64_t window;
	bool was_late;
	struct request {
		uint64_t sent; /* ns */
		uint64_t pages, left;
	} requests[MOST]; /* a ring: answers come in order */
	size_t first, n_requests;
	uint64_t idle_ns; /* the shortest time one took */
	struct latency latency;
	uint64_t told;    /* ns: progress */
	uint64_t alone;   /* ns: since when there is no second lane */
	uint64_t dialled; /* ns: the last time */
	bool told_down;
};

static bool is_up(const struct fetch *f, int lane)
{
	return f->lanes[lane].sock >= 0;
}

static void drop_lane(struct fetch *f, int lane, const char *why)
{
	if (!is_up(f, lane))
		return;
	events_log(f->o->events, 2, "lane %d of %s: %s", lane, f->o->name, why);
	peer_deinit(&f->lanes[lane]);
	close(TAKE_FD(f->lanes[lane].sock));
	f->under_way = f->n_requests = 0;
	f->alone = now_ns();
	missing_ask_again(&f->p->missing);
}

static int want(struct fetch *f, int lane, size_t source, uint64_t mark, size_t n)
{
	Ferry__PeerWant w = FERRY__PEER_WANT__INIT;
	struct error link = ERROR_INIT;
	struct peer *to = &f->lanes[lane];

	w.addr = missing_address(&f->p->missing, source, mark);
	w.pages = (uint32_t)n;
	int r = stream_put(to->out, FERRY__RECORD_TYPE__RECORD_PEER_WANT, f->p->missing.sources[source].pid,
			   0, 0, &w.base, &link);

	if (r >= 0)
		r = stream_flush(to->out, &link);
	if (r < 0)
		drop_lane(f, lane, link.text);
	return r;
}

/* A thread waits. */
static int ask(void *ctx, size_t source, uint64_t mark, struct error *e)
{
	struct fetch *f = ctx;

	(void)e;
	for (int lane = 0; lane < LANES; lane++)
		if (is_up(f, lane)) {
			(void)want(f, lane, source, mark, 1);
			return 0;
		}
	missing_calm(&f->p->missing, source, mark);
	return 0;
}

/* Threads that waited when a connection broke. */
static void ask_for_waiting(struct fetch *f)
{
	for (size_t i = 0; i < f->p->n_waiting && (is_up(f, 0) || is_up(f, 1)); i++) {
		const struct pager_fault *w = &f->p->waiting[i];
		size_t source = w->source;

		if (missing_bit(f->p->missing.sources[source].wanted, w->mark) &&
		    missing_urge(&f->p->missing, source, w->mark))
			(void)ask(f, source, w->mark, NULL);
	}
}

static void note_request(struct fetch *f, size_t n)
{
	f->requests[(f->first + f->n_requests++) % MOST] = (struct request){now_ns(), n, n};
	f->under_way += n;
}

static void note_answer(struct fetch *f, uint64_t n)
{
	while (n && f->n_requests) {
		struct request *q = &f->requests[f->first];
		uint64_t part = MIN(n, q->left);

		q->left -= part;
		n -= part;
		f->under_way -= part;
		if (q->left)
			return;
		uint64_t took = now_ns() - q->sent;

		f->first = (f->first + 1) % MOST;
		f->n_requests--;
		f->idle_ns = f->idle_ns ? MIN(f->idle_ns, took) : took;
		if (took < 2 * f->idle_ns + QUEUE_NS)
			f->window = MIN(f->window + (f->was_late ? AT_ONCE / 4 : q->pages), (uint64_t)MOST);
		else {
			f->was_late = true;
			f->window = MAX(f->window - f->window / 8, (uint64_t)FEWEST);
		}
	}
}

static void fetch_ahead(struct fetch *f)
{
	int lane = is_up(f, 1) ? 1 : 0;
	bool more = lane || now_ns() - f->alone > SECOND_MS * 1000000ull;

	while (more && is_up(f, lane) && f->under_way < f->window) {
		more = false;
		for (size_t i = 0; i < f->p->missing.n_sources && is_up(f, lane); i++) {
			uint64_t mark;
			size_t n = missing_next(&f->p->missing, i, AT_ONCE, &mark);

			if (n && want(f, lane, i, mark, n) >= 0) {
				note_request(f, n);
				more = true;
			}
		}
	}
}

/* --- what comes ---------------------------------------------------------------------------------------- */

static void note_latency(void *ctx, uint64_t ns)
{
	latency_add(ctx, ns);
}

static int find_source(const struct missing *m, uint64_t pid, size_t *ret)
{
	for (size_t i = 0; i < m->n_sources; i++)
		if ((uint64_t)m->sources[i].pid == pid) {
			*ret = i;
			return 0;
		}
	return -ENOENT;
}

/* Pages of a run lie one behind the other, and so do their marks: only such were asked for. */
static int take_pages(struct fetch *f, int lane, const struct record *rec, struct error *e)
{
	const struct page_run *run = &rec->run;
	size_t source = 0, n = run->length / PAGE_SIZE_BYTES;
	uint64_t first = 0, last = 0;

	if (run->space != SPACE_PROCESS || (!rec->data && !(run->flags & PAGE_RUN_ZERO)) ||
	    find_source(&f->p->missing, run->id, &source) < 0 ||
	    !missing_mark(&f->p->missing, source, run->addr, &first) ||
	    !missing_mark(&f->p->missing, source, run->addr + run->length - PAGE_SIZE_BYTES, &last) ||
	    last - first + 1 != n)
		return error_say(e, EPROTO, "the source sent pages that were not asked for");
	if (lane || !is_up(f, 1))
		note_answer(f, n);
	return pager_place(f->p, source, first, n, rec->data, note_latency, &f->latency, e);
}

/* -EREMOTEIO: the connection is of no use any more; other errors are ours. */
static int take_record(struct fetch *f, int lane, struct error *e)
{
	struct error link = ERROR_INIT;
	struct record rec;
	int r = stream_get(f->lanes[lane].in, &rec, &link);

	if (r > 0 && rec.is_pages) {
		r = take_pages(f, lane, &rec, e);
		return r == -EPROTO ? drop_lane(f, lane, e->text), error_clear(e), 0 : r;
	}
	if (r > 0 && rec.type == FERRY__RECORD_TYPE__RECORD_PEER_ERROR)
		(void)peer_take_error(&rec, &link);
	else if (r > 0)
		(void)error_say(&link, EPROTO, "the source sent record %u where pages were due", rec.type);
	else if (r == 0)
		(void)error_say(&link, EPIPE, "the source ended the connection");
	drop_lane(f, lane, link.text);
	return 0;
}

static int take_records(struct fetch *f, int lane, struct error *e)
{
	int r = 0;

	do
		r = take_record(f, lane, e);
	while (r >= 0 && is_up(f, lane) && stream_in_pending(f->lanes[lane].in));
	return r;
}

static void add_lane(struct fetch *f, int sock, int lane)
{
	struct error trouble = ERROR_INIT;

	if (lane < 0 || lane >= LANES) {
		close(sock);
		return;
	}
	drop_lane(f, lane, "another one has come in its place");
	if (peer_init(&f->lanes[lane], sock, &trouble) < 0) {
		close(sock);
		f->lanes[lane].sock = -1;
		return;
	}
	peer_set_timeout(&f->lanes[lane], peer_silence_secs);
	/* What was fetched ahead over the first lane, as this one was not there, is not counted any more. */
	if (lane == 1)
		f->under_way = f->n_requests = 0;
	/* A new stream begins in both directions, whatever was said on that connection before. */
	Ferry__PeerAnswer ans = FERRY__PEER_ANSWER__INIT;

	ans.state = (char *)"fetching";
	if (peer_send(&f->lanes[lane], FERRY__RECORD_TYPE__RECORD_PEER_ANSWER, &ans.base, &trouble) < 0)
		drop_lane(f, lane, trouble.text);
}

/* The source does not come by itself. */
static void dial(struct fetch *f)
{
	if (!f->o->dial || (is_up(f, 0) && is_up(f, 1)) ||
	    (f->dialled && now_ns() - f->dialled < DIAL_MS * 1000000ull))
		return;
	f->dialled = now_ns();
	for (int lane = 0; lane < LANES; lane++) {
		struct error trouble = ERROR_INIT;
		struct peer p;

		if (is_up(f, lane))
			continue;
		if (f->o->dial(f->o->ctx, lane, &p, &trouble) < 0) {
			if (!f->told_down)
				events_log(f->o->events, 2, "%s: %s; threads may wait for pages", f->o->name,
					   trouble.text);
			f->told_down = true;
			return;
		}
		f->lanes[lane] = p;
		peer_set_timeout(&f->lanes[lane], peer_silence_secs);
		if (lane == 1)
			f->under_way = f->n_requests = 0;
	}
	f->told_down = false;
	f->dialled = 0;
}

/* --- progress ------------------------------------------------------------------------------------------ */

static Ferry__PeerProgress measure(const struct fetch *f)
{
	Ferry__PeerProgress m = FERRY__PEER_PROGRESS__INIT;

	m.total = f->p->total;
	m.left = missing_left(&f->p->missing);
	m.arrived = f->p->arrived;
	m.again = f->p->again;
	m.faults = f->p->n_served;
	m.zeros = f->p->n_zeros;
	m.p50_ns = latency_at(&f->latency, 50);
	m.p99_ns = latency_at(&f->latency, 99);
	m.max_ns = f->latency.max;
	return m;
}

static void tell_progress(struct fetch *f)
{
	Ferry__PeerProgress m = measure(f);
	struct error link = ERROR_INIT;
	bool up = is_up(f, 0) || is_up(f, 1);

	f->told = now_ns();
	events_emit(f->o->events,
		    json_pack("{s:s,s:I,s:I,s:I,s:I,s:I,s:I,s:f,s:f,s:f,s:b}", "event", "fetch", "total",
			      (json_int_t)m.total, "left", (json_int_t)m.left, "arrived",
			      (json_int_t)m.arrived, "again", (json_int_t)m.again, "faults",
			      (json_int_t)m.faults, "zeros", (json_int_t)m.zeros, "p50_us", m.p50_ns / 1e3,
			      "p99_us", m.p99_ns / 1e3, "max_us", m.max_ns / 1e3, "link", up));
	for (int lane = 0; lane < LANES; lane++)
		if (is_up(f, lane)) {
			if (peer_send(&f->lanes[lane], FERRY__RECORD_TYPE__RECORD_PEER_PROGRESS, &m.base,
				      &link) < 0)
				drop_lane(f, lane, link.text);
			break;
		}
}

/* --- the loop ------------------------------------------------------------------------------------------ */

static int wait_for_something(struct fetch *f, struct pollfd **pfd, int timeout_ms)
{
	const struct missing *m = &f->p->missing;
	struct pollfd *p = *pfd = xrealloc(*pfd, (m->n_spaces + LANES + 1) * sizeof(*p));
	size_t n = 0;

	p[n++] = (struct pollfd){f->listener, POLLIN, 0};
	for (int lane = 0; lane < LANES; lane++)
		p[n++] = (struct pollfd){f->lanes[lane].sock, POLLIN, 0};
	for (size_t i = 0; i < m->n_spaces; i++)
		p[n++] = (struct pollfd){m->spaces[i].ended ? -1 : m->spaces[i].fd, POLLIN, 0};
	int r = poll(p, n, timeout_ms);

	if (r <= 0)
		memset(p, 0, n * sizeof(*p));
	return r < 0 && errno != EINTR ? -errno : 0;
}

static int once(struct fetch *f, struct pollfd **pfd, int timeout_ms, struct error *e)
{
	int lane, sock, r = wait_for_something(f, pfd, timeout_ms);

	if (r >= 0)
		r = pager_read(f->p, e);
	if (r >= 0)
		r = pager_faults(f->p, ask, f, e);
	for (lane = 0; lane < LANES && r >= 0; lane++)
		if ((*pfd)[1 + lane].revents && is_up(f, lane))
			r = take_records(f, lane, e);
	while (r >= 0 && (sock = lane_take(f->listener, &lane, NULL, 0)) >= 0)
		add_lane(f, sock, lane);
	if (r >= 0) {
		dial(f);
		ask_for_waiting(f);
		fetch_ahead(f);
	}
	if (r >= 0 && now_ns() - f->told > PROGRESS_MS * 1000000ull) {
		tell_progress(f);
		pager_look_for_ended(f->p);
		r = pager_check_holder(f->p, e);
	}
	return r < 0 ? r : job_check_abort(e);
}

/* All is there: the source may end its copy. It may also find that out later. */
static void tell_all(struct fetch *f)
{
	Ferry__PeerProgress m = measure(f);
	struct error link = ERROR_INIT;

	for (int lane = 0; lane < LANES; lane++) {
		if (!is_up(f, lane))
			continue;
		peer_set_timeout(&f->lanes[lane], LINGER_MS / 1000);
		int r = peer_send(&f->lanes[lane], FERRY__RECORD_TYPE__RECORD_PEER_ALL, &m.base, &link);
		struct record rec;

		/* Pages that were under way twice may still come; then it hangs up. */
		while (r >= 0 && (r = stream_get(f->lanes[lane].in, &rec, &link)) > 0)
			;
	}
}

static void many_descriptors(void)
{
	struct rlimit l;

	if (getrlimit(RLIMIT_NOFILE, &l) == 0 && l.rlim_cur < l.rlim_max) {
		l.rlim_cur = l.rlim_max;
		setrlimit(RLIMIT_NOFILE, &l);
	}
}

int fetch_pages(struct pager *p, const struct fetch_options *o, int sock, int lane, struct error *e)
{
	struct fetch f = {.p = p,
			  .o = o,
			  .lanes = {{.sock = -1}, {.sock = -1}},
			  .listener = -1,
			  .told = now_ns(),
			  .alone = now_ns(),
			  .window = FEWEST};
	struct pollfd *pfd = NULL;
	int r = 0;

	error_phase(e, "fetch pages");
	many_descriptors();
	if (o->listen)
		r = f.listener = lane_listen(o->listen, e);
	if (sock >= 0)
		add_lane(&f, sock, lane);
	if (r >= 0)
		dial(&f);
	while (r >= 0 && missing_left(&p->missing))
		r = once(&f, &pfd, PROGRESS_MS, e);
	while (r >= 0 && pager_make_huge(p))
		r = once(&f, &pfd, 0, e);
	if (r >= 0) {
		pager_finish(p);
		tell_progress(&f);
		r = o->finished ? o->finished(o->ctx, e) : 0;
		pager_discard(p->path);
		if (o->listen)
			unlink(o->listen);
		tell_all(&f);
	}
	for (lane = 0; lane < LANES; lane++)
		if (is_up(&f, lane)) {
			peer_deinit(&f.lanes[lane]);
			close(f.lanes[lane].sock);
		}
	if (f.listener >= 0)
		close(f.listener);
	free(pfd);
	return r;
}

static int is_running(void *ctx, struct error *e)
{
	return machine_move(ctx, DEST_RUNNING, e);
}

int fetch_run(struct machine *m, const char *dir, struct pager *p, int sock, int lane, struct error *e)
{
	cleanup_free char *path = lane_path(dir, m->journal->uuid);
	cleanup_free char *name = xasprintf("migration %s", m->journal->uuid);
	const struct fetch_options o = {
		.events = m->events, .name = name, .listen = path, .finished = is_running, .ctx = m};

	return fetch_pages(p, &o, sock, lane, e);
}
