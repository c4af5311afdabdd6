/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Resource limits.  Read from /proc, since prlimit(2) on a process of another user needs a privilege that
 * root in a container may lack; set from inside, after files and memory are there (the limits may be lower
 * than what the process already has) and before its credentials are.
 */
#include "state/task/task.h"

#include <errno.h>
#include <linux/capability.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include "procfs/procfs.h"
#include "proto/task.pb-c.h"
#include "state/task/message.h"

#define LIMITS 16

static const char *const names[LIMITS] = {
	"cpu",     "fsize", "data",  "stack",      "core",     "rss",  "nproc",  "nofile",
	"memlock", "as",    "locks", "sigpending", "msgqueue", "nice", "rtprio", "rttime",
};

static int limits_put(struct capture *c, struct process *p, struct error *e)
{
	struct proc_limits l;
	int r = proc_limits_read(p->pid, &l, e);

	if (r < 0)
		return r;

	Ferry__Limits *m = MESSAGE_NEW(Ferry__Limits, ferry__limits);

	m->limits = xcalloc(LIMITS, sizeof(m->limits[0]));
	for (unsigned i = 0; i < LIMITS; i++) {
		Ferry__Limit *x = MESSAGE_NEW(Ferry__Limit, ferry__limit);

		x->soft = l.soft[i];
		x->hard = l.hard[i];
		m->limits[m->n_limits++] = x;
	}
	snapshot_put(c->snapshot, FERRY__RECORD_TYPE__RECORD_LIMITS, p->pid, 0, &m->base);
	return 0;
}

static int limits_take_warm(struct capture *c, struct process *p, struct thread *t, struct error *e)
{
	(void)t;
	return limits_put(c, p, e);
}

static int limits_take(struct capture *c, struct process *p, struct thread *t, struct batch *b, void *state,
		       struct error *e)
{
	(void)t;
	(void)b;
	(void)state;
	return limits_put(c, p, e);
}

static bool may_raise(void)
{
	struct proc_status s;
	struct error ignored = ERROR_INIT;
	bool r;

	if (proc_status_read(getpid(), 0, &s, &ignored) < 0)
		return false;
	r = s.cap_eff >> CAP_SYS_RESOURCE & 1;
	proc_status_deinit(&s);
	return r;
}

static int limits_check(struct rebuild *r, int32_t pid, int32_t tid, const ProtobufCMessage *msg,
			struct error *e)
{
	const Ferry__Limits *m = (const Ferry__Limits *)msg;

	(void)r;
	(void)tid;
	if (m->n_limits > LIMITS)
		return error_say(e, EPROTO, "pid %d: the image has %zu resource limits, not %d", pid,
				 m->n_limits, LIMITS);

	bool raise = may_raise();

	for (unsigned i = 0; i < m->n_limits; i++) {
		const Ferry__Limit *x = m->limits[i];
		struct rlimit own;

		if (x->soft > x->hard)
			return error_say(e, EPROTO,
					 "pid %d: the image has a soft limit above the hard one (%s)", pid,
					 names[i]);
		if (raise || getrlimit(i, &own) < 0 || x->hard <= own.rlim_max)
			continue;
		return error_say(e, EPERM,
				 "pid %d: its hard limit for %s (%llu) is above this program's own (%llu), "
				 "and raising it "
				 "needs CAP_SYS_RESOURCE",
				 pid, names[i], (unsigned long long)x->hard,
				 (unsigned long long)own.rlim_max);
	}
	return 0;
}

static int limits_build(struct rebuild *r, struct process *p, struct thread *t, const ProtobufCMessage *msg,
			struct batch *b, struct error *e)
{
	const Ferry__Limits *m = (const Ferry__Limits *)msg;

	(void)r;
	(void)t;
	if (m->n_limits > LIMITS)
		return error_say(e, EPROTO, "pid %d: the image has %zu resource limits, not %d", p->pid,
				 m->n_limits, LIMITS);
	for (unsigned i = 0; i < m->n_limits; i++) {
		const uint64_t limit[2] = {m->limits[i]->soft, m->limits[i]->hard};

		batch_call(b, "set resource limit", SYS_prlimit64, ARG(0), ARG(i),
			   ARG_PUT(b, limit, sizeof(limit)), ARG(0));
	}
	return 0;
}

const struct state_kind kind_limits = {
	.name = "task/limits",
	.type = FERRY__RECORD_TYPE__RECORD_LIMITS,
	.scope = KIND_PROCESS,
	.descriptor = &ferry__limits__descriptor,
	.take_warm = limits_take_warm,
	.take = limits_take,
	.check = limits_check,
	.build = limits_build,
};
