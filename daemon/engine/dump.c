/* SPDX-License-Identifier: Apache-2.0 */
/* Pre-dump and dump: the pipeline with an image directory (or page server) at its end. */
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
#include "freeze/rescue.h"
#include "procfs/procfs.h"
#include "state/files/files.h"
#include "state/sockets/tcp.h"

int session_predump(struct session *s, struct stream_out *out, struct error *e)
{
	s->n_rounds = 0;
	s->total = (struct round_stats){0};
	s->t_begin = now_ns();
	error_phase(e, "pre-dump");
	int r = session_put_inventory(s, out, true, e);

	if (r >= 0)
		r = session_round(s, out, false, e);
	if (r >= 0)
		r = stream_finish(out, e);
	if (r >= 0) {
		s->t_freeze = s->t_frozen = s->t_pages = s->t_state = now_ns();
		session_emit_done(s, "pre-dump", stream_out_bytes(out));
	}
	return r;
}

int session_dump(struct session *s, struct stream_out *out, enum session_end end, struct error *e)
{
	struct error undo = ERROR_INIT;
	bool frozen = false;

	s->total = (struct round_stats){0};
	s->t_begin = now_ns();
	int r = session_put_inventory(s, out, false, e);

	/* A directory gets warm records of nothing: its state is complete at the end. */
	if (r >= 0 && s->memory->backend.ops)
		r = session_rounds(s, out, false, NULL, NULL, e);
	if (r >= 0)
		r = session_freeze(s, e);
	frozen = r >= 0;
	if (r >= 0)
		r = session_final(s, out, false, e);
	/* Images first, then the target: with the target to be killed they must be on disk; one that runs on
	 * does not wait for the disk. */
	error_phase(e, "finish images");
	if (r >= 0 && end == SESSION_RUN) {
		r = hooks_run(s->opt.hooks, "post-dump", s->root, e);
		int u = session_end(s, SESSION_RUN, r < 0 ? &undo : e);

		frozen = false;
		if (r >= 0)
			r = u;
		if (r >= 0)
			session_emit_done(s, "dump", stream_out_bytes(out));
		if (r >= 0)
			r = stream_finish(out, e);
		if (r >= 0)
			files_capture_keep(&s->capture);
		return r;
	}
	if (r >= 0)
		r = stream_finish(out, e);
	if (r >= 0)
		r = hooks_run(s->opt.hooks, "post-dump", s->root, e);
	if (r >= 0 && end == SESSION_KILL)
		r = tcp_keep(&s->capture, NULL, e);
	if (r >= 0 && end == SESSION_KILL)
		r = tcp_silence(&s->capture, e);
	if (r >= 0) {
		files_capture_keep(&s->capture);
		r = session_end(s, end, e);
		rescue_note_repair(NULL);
		session_emit_done(s, "dump", stream_out_bytes(out));
		return r;
	}
	if (frozen)
		session_end(s, SESSION_RUN, &undo);
	return r;
}

/* --- with pages left behind ---------------------------------------------------------------------------- */

int session_read(const struct session *s, pid_t pid, uint64_t addr, uint64_t length, void *data,
		 struct error *e)
{
	const struct process *p = tree_find(s->tree, pid);
	const struct memory_process *mp = p ? p->data : NULL;

	if (!mp)
		return -ENOENT;
	int r = pread_full(mp->mem_fd, data, length, (off_t)addr);

	return r < 0 ? error_set(e, -r, "pid %d: read %llu bytes at 0x%llx of the stopped original", pid,
				 (unsigned long long)length, (unsigned long long)addr)
		     : 0;
}

const char *session_uuid(const struct session *s)
{
	return s->uuid;
}

const struct events *session_events(const struct session *s)
{
	return s->events;
}

void session_stop_behind(const struct session *s)
{
	for (size_t i = 0; i < s->tree->n; i++)
		if (s->tree->procs[i]->state == PROCESS_ALIVE)
			kill(s->tree->procs[i]->pid, SIGSTOP);
}

static int put_left(struct session *s, struct stream_out *out, struct error *e)
{
	int r = 0;

	session_leave_end(s);
	for (size_t i = 0; i < s->tree->n && r >= 0; i++) {
		const struct memory_process *mp = s->tree->procs[i]->data;
		Ferry__Left left = FERRY__LEFT__INIT;

		if (!mp || !mp->left.n)
			continue;
		/* Pairs of start and end, as they lie there. */
		left.ranges = (uint64_t *)mp->left.r;
		left.n_ranges = 2 * mp->left.n;
		r = stream_put(out, FERRY__RECORD_TYPE__RECORD_LEFT, mp->pid, 0, 0, &left.base, e);
	}
	return r;
}

static int serve_left(struct session *s, struct stream_out *out, const struct session_serve *serve,
		      bool *ret_begun, struct error *e)
{
	/* Whatever becomes of us, nothing of ours is in it. */
	int r = capture_undo(s, e);

	s->injected = false;
	if (r < 0)
		return r;
	urgent_end();
	s->t_running = now_ns(); /* that is, from here on it is no longer known */
	events_emit(s->events,
		    json_pack("{s:s,s:I,s:I}", "event", "serving", "left", (json_int_t)session_left_pages(s),
			      "bytes", (json_int_t)stream_out_bytes(out)));
	return serve->serve(serve->ctx, s, ret_begun, e);
}

int session_dump_lazy(struct session *s, struct stream_out *out, enum session_end end,
		      const struct session_serve *serve, struct error *e)
{
	struct error undo = ERROR_INIT;
	bool frozen, begun = false;

	s->total = (struct round_stats){0};
	s->t_begin = now_ns();
	s->n_rounds = 0;
	s->post_copy = true;
	s->opt.leave_shared = true;
	int r = session_put_inventory(s, out, false, e);

	if (r >= 0)
		r = session_freeze(s, e);
	frozen = r >= 0;
	if (r >= 0)
		r = session_final(s, out, false, e);
	if (r >= 0)
		r = put_left(s, out, e);
	error_phase(e, "finish images");
	if (r >= 0)
		r = stream_finish(out, e);
	if (r >= 0)
		r = hooks_run(s->opt.hooks, "post-dump", s->root, e);
	if (r >= 0 && !session_left_pages(s))
		events_log(s->events, 2, "nothing of process %d can stay behind: the image is whole",
			   s->root);
	else if (r >= 0)
		r = serve_left(s, out, serve, &begun, e);
	if (r >= 0 || begun)
		files_capture_keep(&s->capture);
	if (r >= 0) {
		r = session_end(s, end, e);
		session_emit_done(s, "dump", stream_out_bytes(out));
		return r;
	}
	if (frozen)
		session_end(s, SESSION_RUN, &undo);
	if (begun)
		error_prefix(e,
			     "what was restored may run, and pages of it are only in process %d, which stays "
			     "stopped "
			     "(kill it, or let it go on with SIGCONT if the other one is gone)",
			     s->root);
	return r;
}
