/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * The source side: a target being tracked and captured.  A session may live through several pre-dumps; it
 * lives in one process (the worker of a job), whose one thread traces the target.
 *
 * Events emitted (docs/events.md): "start" {pid, processes, threads, vmas, bytes, backend}, "round" {n,
 * pages, bytes, dirty_pages, ms, mib_s, dirty_mib_s, left_ms}, "freeze", "frozen" {ms}, "state" {ms}, "done"
 * {rounds, pages, bytes, downtime_ms, total_ms, phases:{...}}.
 */
#include <stdbool.h>
#include <sys/types.h>

#include "base/error.h"
#include "base/events.h"
#include "base/hooks.h"
#include "engine/converge.h"
#include "state/kind.h"
#include "stream/stream.h"

struct session;

struct session_options {
	pid_t pid;
	const char *backend;     /* "auto", a name, or "none" */
	const char *backend_dir; /* NULL: default */
	const char *freeze_cgroup;
	int freeze_timeout_ms;       /* --timeout, default 10,000 */
	unsigned max_rounds;         /* default 30 */
	unsigned downtime_ms;        /* budget, default 50 */
	unsigned max_downtime_ms;    /* give up rather than stop the target for longer; 0: no bound */
	enum on_stall on_stall;      /* default: stop */
	unsigned post_copy_after;    /* freeze after so many rounds, what is left then stays behind; 0: no */
	bool leave_shared;           /* shared memory may, too */
	uint64_t max_bandwidth;      /* bytes/s, 0: no limit */
	enum compress_mode compress; /* of page data, over a link, as far as its other end can unpack them */
	struct state_options state;
	int64_t owner; /* refuse what this user could not do himself (procfs/owner.h); -1: no matter */
	bool observe;  /* it is only followed (engine/observe.h): what could not be moved is no hindrance */
	const struct hooks *hooks; /* NULL: none; called in the process of the session */
};
void session_options_init(struct session_options *o);

enum session_end {
	SESSION_KILL, /* the target ends (a dump's default) */
	SESSION_RUN,  /* --leave-running */
	SESSION_STOP, /* --leave-stopped: SIGSTOP */
};

/* Check the target and begin tracking. Nothing is left in the target on failure. */
int session_open(struct session **ret, const struct session_options *o, const struct events *ev,
		 struct error *e);
/* Take over all options but pid and backend from @o for what follows: a later command of a pre-dump chain may
 * bring others. Strings and hooks are the caller's and stay valid until the next call or session_close. */
void session_set_options(struct session *s, const struct session_options *o);
/* Memory only, in one round, target running. Pages already sent in this session and not written since are not
 * written again. */
int session_predump(struct session *s, struct stream_out *out, struct error *e);
/* Rounds, freeze, state, end. The images are valid (synced) before the target is let go or killed. */
int session_dump(struct session *s, struct stream_out *out, enum session_end end, struct error *e);
/* The same in one pass, with pages left in the frozen target (docs/post-copy.md): @serve gives them to who
 * restores the image, and only then the target ends. Without that it runs on, but where *ret_begun is set
 * (what was restored may run): there it stays stopped. */
struct session_serve {
	int (*serve)(void *ctx, struct session *s, bool *ret_begun, struct error *e);
	void *ctx;
};
int session_dump_lazy(struct session *s, struct stream_out *out, enum session_end end,
		      const struct session_serve *serve, struct error *e);
/* For who serves. Of a process that is no part of the tree: -ENOENT. */
int session_read(const struct session *s, pid_t pid, uint64_t addr, uint64_t length, void *data,
		 struct error *e);
const char *session_uuid(const struct session *s);
const struct events *session_events(const struct session *s);
/* From now on the target stops when it is let go, whoever does it. */
void session_stop_behind(const struct session *s);
/* Stop tracking; the target runs on untouched. NULL is fine. */
void session_close(struct session *s);
pid_t session_pid(const struct session *s);
bool session_target_alive(const struct session *s);
