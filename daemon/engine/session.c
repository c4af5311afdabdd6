/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/source.h"
#include "engine/throttle.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/utsname.h>
#include <time.h>
#include <uuid/uuid.h>

#include "arch/arch.h"
#include "base/util.h"
#include "engine/kin.h"
#include "freeze/cgroup.h"
#include "procfs/owner.h"
#include "procfs/procfs.h"
#include "state/cgroups/cgroups.h"
#include "state/files/files.h"
#include "state/ipc/ipc.h"
#include "state/files/userfaultfd.h"
#include "state/memory/named.h"
#include "track/calls.h"

#define ATTACH_TRIES   10
#define LOOKS          6
#define FIRST_PAUSE_US 5000u /* doubled after each look, up to 40 ms */
/* One call of a backend may take so many times what a stop may. */
#define BACKEND_TIMEOUTS 3

void session_options_init(struct session_options *o)
{
	*o = (struct session_options){.backend = "auto",
				      .freeze_timeout_ms = 10000,
				      .max_rounds = 30,
				      .downtime_ms = 50,
				      .compress = COMPRESS_NONE,
				      .owner = -1,
				      .state = {.ghost_limit = 1 << 20}};
}

pid_t session_pid(const struct session *s)
{
	return s->root;
}

bool session_target_alive(const struct session *s)
{
	struct proc_stat st;
	struct error e = ERROR_INIT;

	return proc_stat_read(s->root, 0, &st, &e) >= 0 && st.start_time == s->root_start &&
	       st.state != 'Z' && st.state != 'X';
}

void session_set_options(struct session *s, const struct session_options *o)
{
	pid_t pid = s->opt.pid;

	s->opt = *o;
	s->opt.pid = pid;
	s->memory->max_bandwidth = o->max_bandwidth;
}

/* --- tracking -------------------------------------------------------------------------------------- */

/* The one short stop before the freeze: a single thread, for the time of two or three system calls. */
static int track_process(struct session *s, struct process *p, struct error *e)
{
	struct task t;
	struct error undo = ERROR_INIT;
	int r = -ESRCH;

	if (!s->memory->backend.ops)
		return 0;
	for (size_t i = 0; i < p->n_threads && r == -ESRCH; i++) {
		error_clear(e);
		memset(&t, 0, sizeof(t));
		r = task_seize(&t, p->pid, p->threads[i]->task.tid, false, e);
	}
	if (r < 0)
		return r;
	uint64_t t0 = now_ns();

	r = task_interrupt(&t, e);
	if (r >= 0)
		r = task_wait_stopped(&t, s->opt.freeze_timeout_ms, e);
	if (r > 0)
		r = -ESRCH;
	if (r >= 0)
		r = task_save(&t, e);
	session_note_stop(s, now_ns() - t0);
	if (r >= 0)
		r = memory_track(s->memory, p, &t, e);
	int u = task_release(&t, r < 0 ? &undo : e);

	return r < 0 ? r : u;
}

/* The same while the whole tree stands still. */
static int track_stopped(struct session *s, struct process *p, struct error *e)
{
	for (size_t i = 0; i < p->n_threads; i++) {
		struct task *t = &p->threads[i]->task;

		if (t->state != TASK_STOPPED)
			continue;
		int r = task_save(t, e);

		return r < 0 ? r : memory_track(s->memory, p, t, e);
	}
	return -ESRCH;
}

static int preflight(struct session *s, struct process *p, struct error *e)
{
	if (s->opt.owner >= 0 && proc_owner_check(p->pid, (uid_t)s->opt.owner, e) < 0)
		return -e->code;
	for (size_t i = 0; state_kinds[i]; i++) {
		int r = state_kinds[i]->preflight ? state_kinds[i]->preflight(&s->capture, p, e) : 0;

		if (r < 0)
			return r;
	}
	return 0;
}

bool session_vanished(const struct process *p)
{
	struct proc_stat st;
	struct error e = ERROR_INIT;

	/* One that is exiting has no memory and no files any more, some time before it is a zombie. */
	if (proc_stat_read(p->pid, 0, &st, &e) < 0 || st.start_time != p->start_time)
		return true;
	/* Its first thread may have ended long before the others. */
	pid_t living = proc_living(p->pid);

	if (living != p->pid && proc_stat_read(p->pid, living, &st, &e) < 0)
		return true;
	return st.state == 'Z' || st.state == 'X' || st.flags & PF_EXITING;
}

/* A process that ended while we looked at it is no failure, unless it is the root. */
int session_forgive(struct session *s, struct process *p, int r, struct error *e)
{
	if (r >= 0 || !session_vanished(p))
		return r;
	if (p->pid == s->root)
		return error_is(e) ? r : error_say(e, ESRCH, "process %d has ended", p->pid);
	error_clear(e);
	return 0;
}

static int attach_once(struct session *s, struct process *p, enum session_when when, struct error *e)
{
	bool exec;
	int r = memory_attach(s->memory, p, e);

	if (r >= 0 && !s->opt.observe)
		r = preflight(s, p, e);
	if (r >= 0 && when != SESSION_FROZEN)
		r = memory_look(&s->capture, p, &exec, e);
	if (r >= 0 && when != SESSION_FROZEN)
		r = when == SESSION_WARM ? track_process(s, p, e) : track_stopped(s, p, e);
	if (r < 0)
		memory_detach(s->memory, p);
	return r;
}

/* Between the steps it may execute another program. What was opened is then another's memory than what is
 * tracked: that of its parent still, if it is the child of a vfork. */
int session_attach(struct session *s, struct process *p, enum session_when when, struct error *e)
{
	for (int tries = 0; tries < ATTACH_TRIES; tries++) {
		int r = attach_once(s, p, when, e);

		if (r < 0 || memory_same_program(p->data))
			return r;
		memory_detach(s->memory, p);
	}
	return error_say(e, EAGAIN, "pid %d executes one program after the other: it cannot be followed",
			 p->pid);
}

void session_gone(void *ctx, struct process *p)
{
	struct session *s = ctx;
	const struct memory_process *mp = p->data;

	if (mp && mp->sent.n) {
		s->gone = xrealloc(s->gone, (s->n_gone + 1) * sizeof(*s->gone));
		s->gone[s->n_gone++] = p->pid;
	}
	memory_detach(s->memory, p);
	s->tree_changed = true;
}

static bool alive(const struct process *p)
{
	return p->state != PROCESS_ZOMBIE;
}

static bool any_new(const struct session *s)
{
	for (size_t i = 0; i < s->tree->n; i++)
		if (!s->tree->procs[i]->data && alive(s->tree->procs[i]))
			return true;
	return false;
}

int session_confirm(struct session *s, int (*look)(struct session *s, struct error *e), struct error *e)
{
	for (unsigned n = 1;; n++) {
		int r = look(s, e);

		if (r != -ENOTSUP || n == LOOKS)
			return r;
		error_clear(e);
		usleep(FIRST_PAUSE_US << MIN(n - 1, 3u));
		r = tree_rescan(s->tree, session_gone, s, e);
		if (r < 0)
			return r;
		if (r > 0)
			s->tree_changed = true;
	}
}

static int attach_new(struct session *s, enum session_when when, struct error *e)
{
	int r = any_new(s) && !s->opt.observe ? tree_check_sharing(s->tree, false, e) : 0;

	for (size_t i = 0; i < s->tree->n && r >= 0; i++) {
		struct process *p = s->tree->procs[i];

		if (p->data && !alive(p)) /* it has ended since, and keeps only its name */
			session_gone(s, p);
		if (p->data || !alive(p))
			continue;
		s->tree_changed = true;
		r = session_forgive(s, p, session_attach(s, p, when, e), e);
		if (p->data)
			((struct memory_process *)p->data)->fresh = true;
	}
	return r;
}

static int attach_new_warm(struct session *s, struct error *e)
{
	return attach_new(s, SESSION_WARM, e);
}

int session_attach_new(struct session *s, enum session_when when, struct error *e)
{
	return when == SESSION_WARM ? session_confirm(s, attach_new_warm, e) : attach_new(s, when, e);
}

/* A session or group leader that is dead can be stood in for at the destination; one that lives outside the
 * tree cannot. */
static bool lives_outside(const struct session *s, pid_t leader)
{
	return !tree_find(s->tree, leader) && (kill(leader, 0) == 0 || errno == EPERM);
}

int session_check_groups(const struct session *s, struct error *e)
{
	for (size_t i = 0; i < s->tree->n && !s->opt.state.shell_job; i++) {
		const struct process *p = s->tree->procs[i];

		if (lives_outside(s, p->sid))
			return error_say(e, ENOTSUP,
					 "pid %d: the leader of its session (%d) is not in the tree: start "
					 "it with setsid(1), "
					 "or use --shell-job",
					 p->pid, p->sid);
		if (lives_outside(s, p->pgid))
			return error_say(e, ENOTSUP,
					 "pid %d: the leader of its process group (%d) is not in the tree",
					 p->pid, p->pgid);
	}
	return 0;
}

static int open_backend(struct session *s, struct error *e)
{
	char *why = NULL;
	int r = backend_open(s->opt.backend ? s->opt.backend : "auto", s->opt.backend_dir,
			     &s->memory->backend, &why, e);

	if (r == 1 && s->opt.observe)
		r = error_say(e, ENOTSUP, "there is no backend that could track it: %s",
			      why ? why : "none is chosen");
	if (r == 1) {
		memset(&s->memory->backend, 0, sizeof(s->memory->backend));
		if (why)
			events_log(s->events, 2, "no dirty tracking, memory is copied frozen: %s", why);
	}
	if (r >= 0)
		s->backend_name = xstrdup(r == 0 ? s->memory->backend.ops->name : "none");
	if (r == 0)
		r = backend_watch(&s->memory->backend, BACKEND_TIMEOUTS * (unsigned)s->opt.freeze_timeout_ms);
	if (r < 0 && !error_is(e))
		error_set(e, -r, "no thread to watch backend %s", s->memory->backend.ops->name);
	free(why);
	return r < 0 ? r : 0;
}

/* Nothing runs in a cgroup that its owner has frozen: our calls would not, and nothing is written that would
 * have to be tracked. */
static void forgo_tracking(struct session *s)
{
	if (!s->opt.freeze_cgroup || !s->memory->backend.ops || !cgroup_is_frozen(s->opt.freeze_cgroup))
		return;
	events_log(s->events, 3, "%s is frozen already: all memory is copied in one pass",
		   s->opt.freeze_cgroup);
	backend_close(&s->memory->backend);
	free(s->backend_name);
	s->backend_name = xstrdup("none");
}

/* What a first round copies, by what /proc says of each process. */
uint64_t session_bytes(const struct session *s)
{
	uint64_t kb = 0, shared = 0;

	for (size_t i = 0; i < s->tree->n; i++) {
		struct proc_status st;
		struct error ignore = ERROR_INIT;

		if (s->tree->procs[i]->state == PROCESS_ZOMBIE ||
		    proc_status_read(process_living(s->tree->procs[i]), 0, &st, &ignore) < 0)
			continue;
		kb += st.rss_anon_kb + st.swap_kb;
		shared = MAX(shared, st.rss_shmem_kb); /* many map the same */
		proc_status_deinit(&st);
	}
	return (kb + shared) * 1024;
}

static size_t count_threads(const struct session *s)
{
	size_t n = 0;

	for (size_t i = 0; i < s->tree->n; i++)
		n += s->tree->procs[i]->n_threads;
	return n;
}

/* Refuse before touching: all processes are looked at before the first is stopped for tracking. */
static int check_all(struct session *s, struct error *e)
{
	int r = session_check_owner(s, e);

	if (r >= 0)
		r = session_check_groups(s, e);
	if (r >= 0)
		r = tree_check_sharing(s->tree, true, e);
	for (size_t i = 0; r >= 0 && i < s->tree->n; i++)
		if (alive(s->tree->procs[i]))
			r = session_forgive(s, s->tree->procs[i], preflight(s, s->tree->procs[i], e), e);
	return r;
}

static int tell_hindrance(struct session *s)
{
	struct error why = ERROR_INIT;

	if (session_confirm(s, check_all, &why) < 0)
		events_log(s->events, 2, "as it is it could not be moved: %s", why.text);
	return 0;
}

int session_open(struct session **ret, const struct session_options *o, const struct events *ev,
		 struct error *e)
{
	struct session *s = xcalloc(1, sizeof(*s));

	s->opt = *o;
	s->events = ev;
	s->root = o->pid;
	s->t_begin = now_ns();
	s->memory = memory_new();
	s->memory->max_bandwidth = o->max_bandwidth;
	s->capture = (struct capture){
		.options = &s->opt.state, .events = ev, .snapshot = &s->snapshot, .memory = s->memory};
	error_phase(e, "check target");
	int r = tree_check_root(o->pid, e);

	if (r >= 0)
		r = open_backend(s, e);
	if (r >= 0)
		forgo_tracking(s);
	if (r >= 0)
		r = tree_scan(o->pid, &s->tree, e);
	if (r >= 0) {
		s->capture.tree = s->tree;
		s->root_start = s->tree->procs[0]->start_time;
		r = o->observe ? tell_hindrance(s) : session_confirm(s, check_all, e);
	}
	error_phase(e, "start tracking");
	if (r >= 0)
		r = session_attach_new(s, SESSION_WARM, e);
	if (r >= 0)
		r = userfaultfd_check(&s->capture, e);
	if (r >= 0)
		r = sysv_check_outside(&s->capture, e);
	if (r < 0) {
		session_close(s);
		return r;
	}
	s->tree_changed = true;
	events_emit(ev, json_pack("{s:s,s:i,s:i,s:i,s:I,s:s}", "event", "start", "pid", s->root, "processes",
				  (int)s->tree->n, "threads", (int)count_threads(s), "bytes",
				  (json_int_t)session_bytes(s), "backend", s->backend_name));
	*ret = s;
	return 0;
}

void session_close(struct session *s)
{
	if (!s)
		return;
	throttle_free(s->throttle);
	for (size_t i = 0; s->tree && i < s->tree->n; i++)
		memory_detach(s->memory, s->tree->procs[i]);
	files_capture_free(&s->capture);
	ipc_capture_free(&s->capture);
	cgroups_capture_free(&s->capture);
	kin_free(s->kin, s->n_kin);
	free(s->gone);
	tree_free(s->tree);
	memory_free(s->memory);
	snapshot_deinit(&s->snapshot);
	free(s->backend_name);
	free(s);
}
