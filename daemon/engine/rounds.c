/* SPDX-License-Identifier: Apache-2.0 */
/* Rounds with the target running: what a round is made of, and how many there are. */
#include "engine/source.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/utsname.h>
#include <time.h>
#include <uuid/uuid.h>

#include "arch/arch.h"
#include "base/util.h"
#include "engine/kin.h"
#include "procfs/procfs.h"
#include "state/files/terminal.h"

static bool has_layout(const struct process *p)
{
	const struct memory_process *mp = p->data;

	return mp && mp->mm;
}

/* One that was just met, or is about to end, is not followed (yet), and cannot be made without a layout. */
static bool is_followed(const struct process *p)
{
	for (; p; p = p->parent)
		if (p->state != PROCESS_ZOMBIE && !has_layout(p))
			return false;
	return true;
}

Ferry__Tree *session_tree_message(struct session *s)
{
	Ferry__Tree *t = xmalloc(sizeof(*t));

	ferry__tree__init(t);
	t->processes = xcalloc(s->tree->n, sizeof(*t->processes));
	cleanup_free const Ferry__Mm **mm = xcalloc(s->tree->n, sizeof(*mm));

	for (size_t i = 0; i < s->tree->n; i++) {
		struct process *p = s->tree->procs[i];
		struct proc_stat st = {.exit_signal = SIGCHLD};
		struct error ignore = ERROR_INIT;

		if (!is_followed(p))
			continue;
		Ferry__TreeProcess *tp = xmalloc(sizeof(*tp));

		ferry__tree_process__init(tp);
		proc_stat_read(p->pid, 0, &st, &ignore);
		tp->pid = p->pid;
		tp->ppid = p->ppid;
		tp->pgid = p->pgid;
		tp->sid = p->sid;
		tp->state = p->state == PROCESS_ZOMBIE    ? FERRY__PROCESS_RUN_STATE__RUN_ZOMBIE
			    : p->state == PROCESS_STOPPED ? FERRY__PROCESS_RUN_STATE__RUN_STOPPED
							  : FERRY__PROCESS_RUN_STATE__RUN_ALIVE;
		tp->exit_status = p->exit_status;
		tp->exit_signal = st.exit_signal;
		tp->start_time = p->start_time;
		tp->tty = p->sid == p->pid ? terminal_of(p->pid) : 0;
		tp->comm = xstrdup(p->comm);
		tp->tids = xcalloc(p->n_threads + 1, sizeof(*tp->tids));
		tp->leader_ended = p->living != 0;
		if (tp->leader_ended)
			tp->tids[tp->n_tids++] = p->pid;
		for (size_t j = 0; j < p->n_threads; j++)
			tp->tids[tp->n_tids++] = p->threads[j]->task.tid;
		t->processes[t->n_processes++] = tp;
		mm[t->n_processes - 1] = p->data ? ((struct memory_process *)p->data)->mm : NULL;
	}
	kin_free(s->kin, s->n_kin);
	s->kin = kin_plan(t, mm);
	s->n_kin = t->n_processes;
	return t;
}

int session_put_inventory(struct session *s, struct stream_out *out, bool pre_dump, struct error *e)
{
	Ferry__Inventory inv = FERRY__INVENTORY__INIT;
	struct utsname un;
	char uuid[37];
	uuid_t u;
	size_t xsize;

	uname(&un);
	uuid_generate(u);
	uuid_unparse(u, uuid);
	memcpy(s->uuid, uuid, sizeof(s->uuid));
	inv.version = 1;
	inv.arch = (char *)arch_name();
	inv.page_size = PAGE_SIZE_BYTES;
	inv.kernel = un.release;
	inv.host = un.nodename;
	inv.uuid = uuid;
	inv.root_pid = s->root;
	arch_xstate_features(&inv.xstate_mask, &xsize);
	inv.xstate_size = xsize;
	inv.backend = s->backend_name;
	inv.time = time(NULL);
	inv.pre_dump = pre_dump;
	inv.program = s->tree->procs[0]->comm;
	inv.task_size = arch_task_size();
	inv.memory = session_bytes(s);
	return stream_put(out, FERRY__RECORD_TYPE__RECORD_INVENTORY, 0, 0, 0, &inv.base, e);
}

/* Tree, layouts, objects as far as they changed: what skeletons follow. */
int session_put_layout(struct session *s, struct stream_out *out, struct error *e)
{
	int r = 0;

	if (s->tree_changed) {
		Ferry__Tree *t = session_tree_message(s);

		session_place_tree(s);
		r = stream_put(out, FERRY__RECORD_TYPE__RECORD_TREE, 0, 0, RECORD_WARM, &t->base, e);
		s->tree_changed = t->n_processes < s->tree->n;
		ferry__tree__free_unpacked(t, NULL);
	}
	Ferry__Objects *os = memory_objects_message(s->memory);

	if (r >= 0 && os->n_objects)
		r = stream_put(out, FERRY__RECORD_TYPE__RECORD_OBJECTS, 0, 0, RECORD_WARM, &os->base, e);
	ferry__objects__free_unpacked(os, NULL);
	for (size_t i = 0; i < s->tree->n && r >= 0; i++) {
		struct memory_process *mp = s->tree->procs[i]->data;

		if (!mp || !mp->mm || !mp->mm_changed)
			continue;
		mp->mm_changed = false;
		r = stream_put(out, FERRY__RECORD_TYPE__RECORD_MM, s->tree->procs[i]->pid, 0, RECORD_WARM,
			       &mp->mm->base, e);
	}
	return r;
}

/* The target exec'ed: tracking ended with the old address space, nothing that was sent is worth anything. */
static int after_exec(struct session *s, struct process *p, enum session_when when, struct error *e)
{
	memory_detach(s->memory, p);
	int r = session_attach(s, p, when, e);

	if (r >= 0)
		((struct memory_process *)p->data)->void_before = true;
	return r;
}

int session_look_all(struct session *s, enum session_when when, struct error *e)
{
	bool frozen = when == SESSION_FROZEN;
	int r = 0;

	s->memory->userfaults_seen = s->memory->userfaults;
	s->memory->one_process = s->tree->n == 1;
	for (size_t i = 0; i < s->tree->n && r >= 0; i++) {
		struct process *p = s->tree->procs[i];
		struct memory_process *mp = p->data;
		bool exec = false;

		if (!mp)
			continue;
		mp->want_flags = !frozen;
		r = memory_look(&s->capture, p, &exec, e);
		if (r >= 0 && (exec || mp->stale)) {
			r = after_exec(s, p, when, e);
			if (r >= 0 && frozen)
				r = memory_look(&s->capture, p, &exec, e);
		}
		if (!frozen)
			r = session_forgive(s, p, r, e);
	}
	return r;
}

/* Everything that was sent of this process is void: an image on disk has it in an earlier round. */
static int put_void(pid_t pid, struct stream_out *out, struct error *e)
{
	struct page_run run = {
		.space = SPACE_PROCESS, .id = pid, .length = arch_task_size(), .flags = PAGE_RUN_DROP};

	return stream_put_pages(out, &run, NULL, e);
}

static int collect_one(struct session *s, struct process *p, enum session_when when, struct error *e)
{
	bool exec, frozen = when == SESSION_FROZEN;
	int r = memory_collect(s->memory, p, frozen, e);

	if (r != -ESRCH || session_vanished(p))
		return r;
	/* Alive, but not the address space we know: it has exec'ed since the look. */
	error_clear(e);
	r = after_exec(s, p, when, e);
	if (r >= 0 && frozen)
		r = memory_look(&s->capture, p, &exec, e);
	return r < 0 ? r : collect_one(s, p, when, e);
}

int session_collect_all(struct session *s, enum session_when when, struct error *e)
{
	int r = 0;

	for (size_t i = 0; i < s->tree->n && r >= 0; i++) {
		struct process *p = s->tree->procs[i];

		if (has_layout(p))
			r = collect_one(s, p, when, e);
		if (when != SESSION_FROZEN)
			r = session_forgive(s, p, r, e);
	}
	return r;
}

/* The memory we have open can be another than the one that is tracked, or now mapped: the process has
 * exec'ed. In a round it is left alone till the next look; frozen, it is begun anew here. */
static int resolve_one(struct session *s, struct process *p, struct stream_out *out, bool layout, bool final,
		       struct error *e)
{
	struct memory_process *mp = p->data;
	bool exec;
	int r = memory_resolve(p, final, e);

	if (r != -ESRCH || session_vanished(p))
		return r;
	error_clear(e);
	memory_plan_clear(mp);
	mp->stale = true;
	if (!final)
		return 0;
	r = after_exec(s, p, SESSION_FROZEN, e);
	if (r >= 0)
		r = memory_look(&s->capture, p, &exec, e);
	if (r >= 0 && layout)
		r = session_put_layout(s, out, e);
	if (r >= 0)
		r = memory_collect(s->memory, p, true, e);
	return r < 0 ? r : memory_resolve(p, true, e);
}

int session_send_one(struct session *s, struct process *p, struct stream_out *out, bool layout, bool final,
		     struct round_stats *st, struct error *e)
{
	struct memory_process *mp = p->data;
	int r = 0;

	if (mp->void_before && !layout)
		r = put_void(p->pid, out, e);
	mp->void_before = false;
	return r < 0 ? r : memory_send(s->memory, p, out, final, st, e);
}

/* Pids of processes that have ended may come again: images hold nothing of the old ones any more. */
static int put_gone(struct session *s, struct stream_out *out, bool layout, struct error *e)
{
	int r = 0;

	for (size_t i = 0; i < s->n_gone && r >= 0 && !layout; i++)
		r = put_void(s->gone[i], out, e);
	s->n_gone = 0;
	return r;
}

int session_send_all(struct session *s, struct stream_out *out, bool layout, bool final,
		     struct round_stats *st, struct error *e)
{
	int r = put_gone(s, out, layout, e);

	for (size_t i = 0; i < s->tree->n && r >= 0; i++) {
		struct process *p = s->tree->procs[i];

		r = has_layout(p) ? resolve_one(s, p, out, layout, final, e) : 0;
		if (!final)
			r = session_forgive(s, p, r, e);
	}
	if (r >= 0 && final && s->post_copy)
		r = session_leave(s, e);
	if (r >= 0)
		r = session_pass_on(s, out, layout, final, st, e);
	for (size_t i = 0; i < s->tree->n && r >= 0; i++) {
		struct process *p = s->tree->procs[i];

		if (has_layout(p) && ((struct memory_process *)p->data)->plan)
			r = session_send_one(s, p, out, layout, final, st, e);
		if (!final)
			r = session_forgive(s, p, r, e);
	}
	return r < 0 ? r : memory_objects_round(s->memory, out, final, st, e);
}

static void emit_round(struct session *s, const struct round_stats *st, uint64_t ns, uint64_t saved)
{
	const struct round_record *r = s->rounds;
	size_t n = s->n_rounds;
	double dirty = n >= 2 && r[n - 2].ns ? r[n - 1].bytes / 1048576.0 / (r[n - 2].ns / 1e9) : 0;

	json_t *ev = json_pack("{s:s,s:i,s:I,s:I,s:I,s:f,s:f,s:f,s:f}", "event", "round", "n", (int)n,
			       "pages", (json_int_t)st->pages, "bytes", (json_int_t)st->bytes, "dropped",
			       (json_int_t)st->dropped, "ms", ns / 1e6, "mib_s",
			       ns ? st->bytes / 1048576.0 / (ns / 1e9) : 0.0, "dirty_mib_s", dirty, "left_ms",
			       converge_left_ns(r, n, 0) / 1e6);

	if (st->shared)
		json_object_set_new(ev, "shared", json_integer((json_int_t)st->shared));
	if (saved)
		json_object_set_new(ev, "wire",
				    json_integer((json_int_t)(st->bytes - MIN(saved, st->bytes))));
	if (st->same || memory_keeps_hashes(s->memory))
		json_object_set_new(ev, "same", json_integer((json_int_t)st->same));
	if (st->copied)
		json_object_set_new(ev, "copied", json_integer((json_int_t)st->copied));
	if (memory_stops_target(s->memory))
		json_object_set_new(ev, "freeze_ms", json_real(st->freeze_ns / 1e6));
	events_emit(s->events, ev);
}

void session_add_stats(struct round_stats *sum, const struct round_stats *st)
{
	sum->pages += st->pages;
	sum->bytes += st->bytes;
	sum->dropped += st->dropped;
	sum->zero += st->zero;
	sum->shared += st->shared;
	sum->same += st->same;
	sum->copied += st->copied;
	sum->freeze_ns += st->freeze_ns;
}

/*
 * With a backend that cannot collect from a running target it stands still for the collect, and only for
 * that: what was found is read and sent while it runs again; a page that changes meanwhile was armed before
 * and belongs to the next round.  Maps that are new since the look are not armed yet, so the next round takes
 * them whole; processes that are new are followed from here on.  If we die in here the kernel lets every
 * thread go, and none was changed.
 */
static int collect_stopped(struct session *s, struct round_stats *st, struct error *e)
{
	struct freeze_options fo = {.freeze_cgroup = s->opt.freeze_cgroup,
				    .userfaults = s->memory->userfaults,
				    .timeout_ms = s->opt.freeze_timeout_ms};
	struct error undo = ERROR_INIT;
	uint64_t t0 = now_ns();
	int r = tree_freeze(s->tree, &fo, session_gone, s, e);

	if (r < 0)
		return r;
	r = session_attach_new(s, SESSION_STOPPED, e);
	if (r >= 0)
		r = session_collect_all(s, SESSION_STOPPED, e);
	int t = tree_thaw(s->tree, r < 0 ? &undo : e);

	st->freeze_ns = now_ns() - t0;
	return r < 0 ? r : t;
}

/* Pages are protected, and not read yet: see state/memory/unseen.c. */
static int find_unseen_writes(struct session *s, struct error *e)
{
	int r = 0;

	for (size_t i = 0; i < s->tree->n && r >= 0; i++) {
		struct process *p = s->tree->procs[i];

		if (!has_layout(p))
			continue;
		if (memory_find_unseen_writes(p))
			events_log(s->events, 2,
				   "pid %d has its memory written past the page tables (direct I/O, buffers "
				   "of an io_uring): all of it is compared again "
				   "when it is frozen",
				   p->pid);
		r = memory_check_pins(p, e);
	}
	return r;
}

int session_collect(struct session *s, struct round_stats *st, struct error *e)
{
	int r = tree_rescan(s->tree, session_gone, s, e);

	if (r > 0)
		s->tree_changed = true;
	if (r >= 0)
		r = session_attach_new(s, SESSION_WARM, e);
	if (r >= 0)
		r = session_look_all(s, SESSION_WARM, e);
	uint64_t t0 = now_ns();

	if (r >= 0)
		r = memory_stops_target(s->memory) ? collect_stopped(s, st, e)
						   : session_collect_all(s, SESSION_WARM, e);
	st->collect_ns = now_ns() - t0;
	return r < 0 || s->opt.observe ? r : find_unseen_writes(s, e);
}

int session_resolve(struct session *s, struct process *p, struct error *e)
{
	return has_layout(p) ? session_forgive(s, p, resolve_one(s, p, NULL, false, false, e), e) : 0;
}

/* A page in swap comes back in so many ns, as far as that can be said: it depends on what the swap is. */
#define SWAP_PAGE_NS 50000u

static void note_swap(struct session *s, const struct round_stats *st)
{
	if (st->in_swap && !s->costs.swap_ns)
		events_log(s->events, 3,
			   "it fetches pages from swap all the time: the %llu KiB that are there are copied "
			   "when it is frozen",
			   (unsigned long long)st->in_swap >> 10);
	s->costs.swap_ns = st->in_swap / PAGE_SIZE_BYTES * SWAP_PAGE_NS;
}

int session_round(struct session *s, struct stream_out *out, bool layout, struct error *e)
{
	struct round_stats st = {0};
	uint64_t t0 = now_ns(), saved = s->flow.pages - s->flow.wire;

	error_phase(e, "round %zu", s->n_rounds + 1);
	int r = session_collect(s, &st, e);

	if (r >= 0 && layout)
		r = session_put_layout(s, out, e);
	if (r >= 0)
		r = session_send_all(s, out, layout, false, &st, e);
	if (r >= 0)
		r = stream_flush(out, e);
	if (r < 0)
		return r;
	session_add_stats(&s->total, &st);
	s->shared_part = st.bytes ? (double)st.object_bytes / (double)st.bytes : 0;
	if (s->n_rounds == SESSION_MAX_ROUNDS)
		memmove(s->rounds, s->rounds + 1, sizeof(s->rounds) - sizeof(s->rounds[0]));
	else
		s->n_rounds++;
	s->rounds[s->n_rounds - 1] = (struct round_record){st.bytes, now_ns() - t0};
	note_swap(s, &st);
	stream_out_flow(out, &s->flow);
	emit_round(s, &st, now_ns() - t0, s->flow.pages - s->flow.wire - saved);
	return 0;
}

static int take_warm(struct session *s, struct error *e)
{
	int r = 0;

	error_phase(e, "warm state");
	snapshot_drop_warm(&s->snapshot);
	s->snapshot.putting_warm = s->capture.warm = true;
	for (size_t i = 0; state_kinds[i] && r >= 0; i++) {
		const struct state_kind *k = state_kinds[i];

		if (!k->take_warm)
			continue;
		if (k->scope == KIND_TREE)
			r = k->take_warm(&s->capture, NULL, NULL, e);
		for (size_t j = 0; k->scope != KIND_TREE && j < s->tree->n && r >= 0; j++) {
			struct process *p = s->tree->procs[j];

			for (size_t t = 0;
			     p->data && t < (k->scope == KIND_THREAD ? p->n_threads : 1) && r >= 0; t++)
				r = session_forgive(s, p, k->take_warm(&s->capture, p, p->threads[t], e), e);
		}
	}
	s->snapshot.putting_warm = s->capture.warm = false;
	return r;
}

int session_put_warm(struct session *s, struct stream_out *out, struct error *e)
{
	uint64_t t0 = now_ns();
	int r = session_confirm(s, take_warm, e);

	for (size_t i = 0; i < s->snapshot.n && r >= 0; i++) {
		const struct snapshot_record *x = &s->snapshot.r[i];

		r = stream_put(out, x->type, x->pid, x->tid, RECORD_WARM, x->message, e);
	}
	snapshot_drop_warm(&s->snapshot);
	s->costs.state_ns = now_ns() - t0;
	return r;
}
