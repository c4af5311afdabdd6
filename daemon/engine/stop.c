/* SPDX-License-Identifier: Apache-2.0 */
/* The last pass, with the target frozen: last pages, all state, and the end of the freeze. */
#include "engine/source.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/utsname.h>
#include <time.h>
#include <uuid/uuid.h>

#include "arch/arch.h"
#include "base/urgent.h"
#include "base/util.h"
#include "procfs/owner.h"
#include "procfs/procfs.h"
#include "state/files/files.h"
#include "state/memory/memory.h"
#include "state/memory/named.h"
#include "state/sockets/tcp.h"

int session_check_owner(struct session *s, struct error *e)
{
	int r = 0;

	for (size_t i = 0; s->opt.owner >= 0 && i < s->tree->n && r >= 0; i++)
		if (s->tree->procs[i]->state != PROCESS_ZOMBIE)
			r = proc_owner_check(s->tree->procs[i]->pid, (uid_t)s->opt.owner, e);
	return r;
}

#define QUEUE_MS 2000 /* how long for what waits to be read, or accepted */

/* Until all stand still, no inotify or fanotify has events that cannot be taken along, and no TCP connection
 * waits to be accepted; if there are some all the time, capturing the descriptor says so. */
static int freeze_tree(struct session *s, struct error *e)
{
	const struct freeze_options fo = {.freeze_cgroup = s->opt.freeze_cgroup,
					  .userfaults = s->memory->userfaults,
					  .timeout_ms = s->opt.freeze_timeout_ms};
	unsigned bound = s->opt.max_downtime_ms / 2; /* to which the time since the first stop is held */
	uint64_t until = now_ns() + (bound && bound < QUEUE_MS ? bound : QUEUE_MS) * 1000000ull;

	for (;;) {
		struct inotify_queues queues;
		struct awaited backlog = {0};

		s->t_freeze = now_ns();
		int r = tree_freeze(s->tree, &fo, session_gone, s, e);

		s->t_frozen = now_ns();
		if (r < 0 || s->tree->procs[0]->state == PROCESS_ZOMBIE)
			return r;
		r = inotify_find_queued(&s->capture, &queues, e);
		if (r >= 0)
			r = tcp_find_backlog(&s->capture, &backlog, e);
		if (r < 0 || !(queues.queues.n || backlog.n)) {
			inotify_queues_deinit(&queues);
			return r;
		}
		if (s->t_frozen > until) {
			pid_t pid = queues.pid;
			int fd = queues.fd;

			inotify_queues_deinit(&queues);
			awaited_deinit(&backlog);
			return pid ? error_say(
					     e, EAGAIN,
					     "pid %d fd %d: fanotify events wait to be read, which cannot be "
					     "moved: try again when they are read",
					     pid, fd)
				   : 0;
		}
		if (queues.queues.n)
			events_log(s->events, 3,
				   "events of %zu inotify descriptors wait to be read: the target runs on",
				   queues.queues.n);
		if (backlog.n)
			events_log(s->events, 3,
				   "TCP connections wait to be accepted at %zu sockets: the target runs on",
				   backlog.n);
		r = tree_thaw(s->tree, e);
		if (r >= 0)
			inotify_wait_read(&queues, until);
		if (r >= 0)
			tcp_wait_accepted(&backlog, until);
		inotify_queues_deinit(&queues);
		awaited_deinit(&backlog);
		if (r >= 0)
			r = job_check_abort(e);
		if (r < 0)
			return r;
	}
}

int session_freeze(struct session *s, struct error *e)
{
	error_phase(e, "freeze");
	int r = job_check_abort(e);

	if (r < 0)
		return r;
	events_emit(
		s->events,
		json_pack("{s:s,s:f,s:f,s:f}", "event", "freeze", "left_ms",
			  s->n_rounds ? converge_left_ns(s->rounds, s->n_rounds, s->costs.rtt_ns) / 1e6 : 0.0,
			  "fixed_ms", s->fixed_ns / 1e6, "monotonic_ms", now_ns() / 1e6));
	if (s->memory->backend.ops) /* without tracking all of the memory goes now, which is no short work */
		urgent_begin();
	session_full_speed(s); /* what is out of its share of time does not come to its stop, either */
	r = freeze_tree(s, e);
	if (r < 0) {
		struct error undo = ERROR_INIT;

		tcp_undo(&s->capture, &undo);
		if (s->tree->frozen)
			tree_thaw(s->tree, &undo);
		urgent_end();
		return r;
	}
	memory_objects_frozen(s->memory);
	/* Killed by somebody, or for lack of memory: a zombie is not what was asked for. */
	if (s->tree->procs[0]->state == PROCESS_ZOMBIE)
		r = error_say(e, ESRCH, "process %d ended before it could be stopped", s->root);
	/* It may have become somebody else since it was looked at: now it stands still. */
	if (r >= 0)
		r = session_check_owner(s, e);
	if (r >= 0)
		r = hooks_run(s->opt.hooks, "network-lock", s->root, e);
	if (r >= 0)
		r = session_attach_new(s, SESSION_FROZEN, e);
	if (r >= 0)
		r = session_check_groups(s, e);
	if (r >= 0)
		r = session_look_all(s, SESSION_FROZEN, e);
	if (r >= 0)
		r = io_uring_wait_idle(&s->capture, e);
	if (r >= 0)
		r = aio_wait_idle(&s->capture, e);
	if (r >= 0)
		r = sysv_check_outside(&s->capture, e);
	if (r < 0) {
		struct error undo = ERROR_INIT;

		session_end(s, SESSION_RUN, &undo);
	}
	return r;
}

static int put_ghost(void *ctx, uint32_t space, uint64_t id, uint64_t addr, const void *data, uint64_t length,
		     struct error *e)
{
	while (length) {
		uint64_t n = MIN(length, (uint64_t)STREAM_MAX_RUN);
		struct page_run run = {.space = space, .id = id, .addr = addr, .length = n};
		int r = stream_put_pages(ctx, &run, data, e);

		if (r < 0)
			return r;
		data = (const char *)data + n;
		addr += n;
		length -= n;
	}
	return 0;
}

static int final_objects(struct session *s, struct stream_out *out, bool layout, struct error *e)
{
	struct round_stats st = {0};
	Ferry__Objects *os = memory_objects_message(s->memory);
	int r = 0;

	if (layout && os->n_objects)
		r = stream_put(out, FERRY__RECORD_TYPE__RECORD_OBJECTS, 0, 0, RECORD_WARM, &os->base, e);
	snapshot_put(&s->snapshot, FERRY__RECORD_TYPE__RECORD_OBJECTS, 0, 0, &os->base);
	if (r >= 0)
		r = memory_objects_round(s->memory, out, true, &st, e);
	if (r >= 0)
		r = memory_objects_unleave(s->memory, out, &st, e);
	session_add_stats(&s->total, &st);
	return r;
}

int session_final(struct session *s, struct stream_out *out, bool layout, struct error *e)
{
	struct round_stats st = {0};

	error_phase(e, "last pages");
	int r = session_collect_all(s, SESSION_FROZEN, e);

	if (r >= 0 && layout)
		r = session_put_layout(s, out, e);
	if (r >= 0)
		r = session_send_all(s, out, layout, true, &st, e);
	session_add_stats(&s->total, &st);
	if (r >= 0)
		r = stream_flush(out, e);
	s->t_pages = now_ns();
	error_phase(e, "capture state");
	s->capture.pages = (struct page_sink){put_ghost, out};
	if (r >= 0) {
		Ferry__Tree *t = session_tree_message(s);

		snapshot_deinit(&s->snapshot);
		snapshot_put(&s->snapshot, FERRY__RECORD_TYPE__RECORD_TREE, 0, 0, &t->base);
		s->injected = true;
		r = capture_state(s, e);
	}
	/* Objects that only descriptors refer to were met just now; the others have nothing new. Then all of
	 * them are known. */
	if (r >= 0)
		r = final_objects(s, out, layout, e);
	for (size_t i = 0; i < s->snapshot.n && r >= 0; i++) {
		const struct snapshot_record *x = &s->snapshot.r[i];

		r = stream_put(out, x->type, x->pid, x->tid, 0, x->message, e);
	}
	s->t_state = now_ns();
	stream_out_flow(out, &s->flow);
	events_emit(s->events,
		    json_pack("{s:s,s:I,s:f,s:f,s:f}", "event", "frozen", "pages", (json_int_t)st.pages,
			      "freeze_ms", (s->t_frozen - s->t_freeze) / 1e6, "pages_ms",
			      (s->t_pages - s->t_frozen) / 1e6, "state_ms", (s->t_state - s->t_pages) / 1e6));
	return r;
}

int session_end(struct session *s, enum session_end end, struct error *e)
{
	int r = 0;

	if (end == SESSION_KILL) {
		urgent_end();
		return tree_kill(s->tree, e);
	}
	if (s->injected)
		r = capture_undo(s, e);
	s->injected = false;
	int u = files_capture_undo(&s->capture, e);

	if (r >= 0)
		r = u;
	for (size_t i = 0; end == SESSION_STOP && i < s->tree->n; i++)
		if (s->tree->procs[i]->state == PROCESS_ALIVE)
			kill(s->tree->procs[i]->pid, SIGSTOP);
	int t = tree_thaw(s->tree, e);

	urgent_end();
	struct error hook = ERROR_INIT;

	hooks_run(s->opt.hooks, "network-unlock", s->root, &hook);
	return r < 0 ? r : t;
}

/* What packing has saved. */
static void add_flow(const struct session *s, json_t *ev)
{
	enum codec most = CODEC_LZ4;

	if (s->flow.wire == s->flow.pages)
		return;
	for (enum codec c = most; c < CODECS; c++)
		if (s->flow.by[c] > s->flow.by[most])
			most = c;
	json_object_set_new(ev, "page_bytes", json_integer((json_int_t)s->flow.pages));
	json_object_set_new(ev, "wire_bytes", json_integer((json_int_t)s->flow.wire));
	json_object_set_new(ev, "compress", json_string(codec_name(most)));
}

void session_emit_done(struct session *s, const char *verb, uint64_t bytes)
{
	uint64_t now = now_ns(), end = s->t_running ? s->t_running : now;

	json_t *ev = json_pack(
		"{s:s,s:s,s:i,s:I,s:I,s:f,s:f,s:{s:f,s:f,s:f,s:f}}", "event", "done", "verb", verb, "rounds",
		(int)s->n_rounds, "pages", (json_int_t)s->total.pages, "bytes", (json_int_t)bytes,
		"downtime_ms", (end - s->t_freeze) / 1e6, "total_ms", (now - s->t_begin) / 1e6, "phases",
		"freeze_ms", (s->t_frozen - s->t_freeze) / 1e6, "pages_ms", (s->t_pages - s->t_frozen) / 1e6,
		"state_ms", (s->t_state - s->t_pages) / 1e6, "end_ms", (end - s->t_state) / 1e6);

	if (memory_stops_target(s->memory))
		json_object_set_new(ev, "rounds_freeze_ms", json_real(s->total.freeze_ns / 1e6));
	if (s->total.same)
		json_object_set_new(ev, "same", json_integer((json_int_t)s->total.same));
	if (s->total.copied)
		json_object_set_new(ev, "copied", json_integer((json_int_t)s->total.copied));
	add_flow(s, ev);
	events_emit(s->events, ev);
}
