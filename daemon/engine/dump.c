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
		r = tcp_part(&s->capture, NULL, e);
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
