/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Scheduling: policy, priority, nice, time slice, clamps, reset-on-fork, CPU affinity, I/O priority.  All of
 * it is read and set from outside by thread id; set last (finish), so that a skeleton is not slowed down by
 * its own low priority.  Only what differs from the skeleton's own is set.
 *
 * A thread that may run on all CPUs of the source may run on all of the destination, however many it has; one
 * that is bound to some keeps those that exist.
 */
#include "state/task/task.h"

#include <errno.h>
#include <linux/sched.h>
#include <linux/sched/types.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include "proto/task.pb-c.h"
#include "state/task/message.h"

#define CPU_BYTES          1024 /* 8192 CPUs, the most x86-64 can be built for */
#define ONLINE_VALID_NS    1000000000ull
#define IOPRIO_WHO_PROCESS 1
#define UTIL_MAX           1024

/* Policies that have no nice value in struct sched_attr. */
static bool has_priority(uint32_t policy)
{
	return policy == SCHED_FIFO || policy == SCHED_RR || policy == SCHED_DEADLINE;
}

struct cpu_mask {
	uint8_t v[CPU_BYTES];
};

static bool mask_has_all(const struct cpu_mask *m, const struct cpu_mask *of)
{
	for (size_t i = 0; i < CPU_BYTES; i++) {
		if (of->v[i] & ~m->v[i])
			return false;
	}
	return true;
}

static size_t mask_bytes(const struct cpu_mask *m)
{
	size_t n = CPU_BYTES;

	while (n && !m->v[n - 1])
		n--;
	return n;
}

/* "0-3,8" */
static void parse_cpu_list(const char *text, struct cpu_mask *ret)
{
	memset(ret, 0, sizeof(*ret));
	while (*text >= '0' && *text <= '9') {
		char *end;
		unsigned long from = strtoul(text, &end, 10), to = from;

		if (*end == '-')
			to = strtoul(end + 1, &end, 10);
		for (unsigned long cpu = from; cpu <= to && cpu < CPU_BYTES * 8; cpu++)
			ret->v[cpu / 8] |= 1 << cpu % 8;
		text = *end == ',' ? end + 1 : end;
	}
}

/* CPUs that are online. Asked for every thread of the target while it is frozen: remembered for a second. */
static int online_cpus(struct cpu_mask *ret, struct error *e)
{
	static _Thread_local struct cpu_mask known;
	static _Thread_local uint64_t known_at;
	const char *path = "/sys/devices/system/cpu/online";
	cleanup_free char *text = NULL;
	uint64_t now = now_ns();

	if (!known_at || now - known_at > ONLINE_VALID_NS) {
		ssize_t n = read_file(path, &text);

		if (n < 0)
			return error_set(e, -n, "read %s", path);
		parse_cpu_list(text, &known);
		known_at = now;
	}
	*ret = known;
	return 0;
}

static int read_affinity(pid_t tid, struct cpu_mask *ret, struct error *e)
{
	memset(ret, 0, sizeof(*ret));
	if (syscall(SYS_sched_getaffinity, tid, sizeof(ret->v), ret->v) < 0)
		return error_set(e, errno, "tid %d: read its CPU affinity", tid);
	return 0;
}

static int read_attr(pid_t tid, struct sched_attr *ret, struct error *e)
{
	memset(ret, 0, sizeof(*ret));
	if (syscall(SYS_sched_getattr, tid, ret, sizeof(*ret), 0) < 0)
		return error_set(e, errno, "tid %d: read its scheduling policy", tid);
	return 0;
}

/* Newer kernels show the time slice of a normal thread as its run time. Only one that it asked for is worth
 * keeping: one that differs from ours. */
static uint64_t usual_slice(void)
{
	struct sched_attr own = {0};

	if (syscall(SYS_sched_getattr, 0, &own, sizeof(own), 0) < 0 || own.sched_policy != SCHED_NORMAL)
		return 0;
	return own.sched_runtime;
}

static int read_nice(pid_t tid, int *ret, struct error *e)
{
	errno = 0;
	*ret = getpriority(PRIO_PROCESS, tid);
	return *ret == -1 && errno ? error_set(e, errno, "tid %d: read its nice value", tid) : 0;
}

static int read_sched(pid_t tid, Ferry__Sched *m, struct error *e)
{
	struct cpu_mask mask, online;
	struct sched_attr a;
	int nice = 0;
	int r = read_attr(tid, &a, e);

	if (r == 0)
		r = read_nice(tid, &nice, e);
	if (r == 0)
		r = read_affinity(tid, &mask, e);
	if (r == 0)
		r = online_cpus(&online, e);
	if (r < 0)
		return r;
	m->policy = a.sched_policy;
	m->flags = a.sched_flags;
	m->nice = nice;
	m->priority = a.sched_priority;
	if (a.sched_policy == SCHED_DEADLINE || a.sched_runtime != usual_slice())
		m->runtime_ns = a.sched_runtime;
	m->deadline_ns = a.sched_deadline;
	m->period_ns = a.sched_period;
	m->util_min = a.sched_util_min;
	m->util_max = a.sched_util_max;
	if (!mask_has_all(&mask, &online))
		m->affinity = message_bytes(mask.v, mask_bytes(&mask));
	r = syscall(SYS_ioprio_get, IOPRIO_WHO_PROCESS, tid);
	if (r < 0)
		return error_set(e, errno, "tid %d: read its I/O priority", tid);
	m->ioprio = r;
	return 0;
}

static int sched_take(struct capture *c, struct process *p, struct thread *t, struct batch *b, void *state,
		      struct error *e)
{
	Ferry__Sched *m = MESSAGE_NEW(Ferry__Sched, ferry__sched);
	int r = read_sched(t->task.tid, m, e);

	(void)b;
	(void)state;
	if (r < 0) {
		ferry__sched__free_unpacked(m, NULL);
		return r;
	}
	snapshot_put(c->snapshot, FERRY__RECORD_TYPE__RECORD_SCHED, p->pid, t->task.tid, &m->base);
	return 0;
}

/* --- rebuild ------------------------------------------------------------------------------------------- */
static int sched_check(struct rebuild *r, int32_t pid, int32_t tid, const ProtobufCMessage *msg,
		       struct error *e)
{
	const Ferry__Sched *m = (const Ferry__Sched *)msg;

	(void)r;
	if (m->affinity.len > CPU_BYTES)
		return error_say(e, EPROTO, "pid %d, tid %d: the image has an affinity mask of %zu bytes",
				 pid, tid, m->affinity.len);
	return 0;
}

static int set_affinity(struct rebuild *r, pid_t tid, const Ferry__Sched *m, struct error *e)
{
	struct cpu_mask now, online, wanted;
	int err = read_affinity(tid, &now, e);

	if (err == 0)
		err = online_cpus(&online, e);
	if (err < 0)
		return err;
	memset(&wanted, 0xff, sizeof(wanted));
	if (m->affinity.len) {
		memset(&wanted, 0, sizeof(wanted));
		memcpy(wanted.v, m->affinity.data, m->affinity.len);
		if (!mask_has_all(&online, &wanted))
			events_log(r->events, 2, "tid %d: is bound to CPUs that this machine does not have",
				   tid);
		for (size_t i = 0; i < CPU_BYTES; i++)
			wanted.v[i] &= online.v[i];
		if (!mask_bytes(&wanted)) {
			events_log(r->events, 2, "tid %d: none of its CPUs is here, it may run on all", tid);
			memset(&wanted, 0xff, sizeof(wanted));
		}
	}
	if (mask_has_all(&now, &online) ? mask_has_all(&wanted, &online)
					: memcmp(&now, &wanted, sizeof(now)) == 0)
		return 0;
	if (syscall(SYS_sched_setaffinity, tid, sizeof(wanted.v), wanted.v) < 0)
		return error_set(e, errno, "tid %d: set its CPU affinity", tid);
	return 0;
}

static bool clamped(const struct sched_attr *a)
{
	return a->sched_util_max && (a->sched_util_min || a->sched_util_max != UTIL_MAX);
}

static int set_policy(pid_t tid, const Ferry__Sched *m, struct error *e)
{
	struct sched_attr now, a = {
				       .size = sizeof(a),
				       .sched_policy = m->policy,
				       .sched_flags = m->flags & (SCHED_FLAG_RESET_ON_FORK |
								  SCHED_FLAG_RECLAIM | SCHED_FLAG_DL_OVERRUN),
				       .sched_nice = has_priority(m->policy) ? 0 : m->nice,
				       .sched_priority = m->priority,
				       .sched_runtime = m->runtime_ns,
				       .sched_deadline = m->deadline_ns,
				       .sched_period = m->period_ns,
				       .sched_util_min = m->util_min,
				       .sched_util_max = m->util_max,
			       };
	int err, nice;

	err = read_attr(tid, &now, e);
	if (err == 0)
		err = read_nice(tid, &nice, e);
	if (err < 0)
		return err;
	/* Real-time threads have a nice value too, for the day they become normal again. */
	if (nice != m->nice && setpriority(PRIO_PROCESS, tid, m->nice) < 0)
		return error_set(e, errno, "tid %d: set its nice value to %d", tid, m->nice);
	if (clamped(&a))
		a.sched_flags |= SCHED_FLAG_UTIL_CLAMP_MIN | SCHED_FLAG_UTIL_CLAMP_MAX;
	else if (now.sched_policy == m->policy && now.sched_flags == a.sched_flags &&
		 now.sched_priority == m->priority && m->policy != SCHED_DEADLINE && !m->runtime_ns)
		return 0;
	if (syscall(SYS_sched_setattr, tid, &a, 0) < 0)
		return error_set(e, errno, "tid %d: set its scheduling policy %u, priority %u", tid,
				 m->policy, m->priority);
	return 0;
}

static int sched_finish(struct rebuild *r, struct process *p, struct thread *t, const ProtobufCMessage *msg,
			struct error *e)
{
	const Ferry__Sched *m = (const Ferry__Sched *)msg;
	pid_t tid = t->task.tid;
	int err = sched_check(r, p->pid, tid, msg, e);

	/* Affinity first: a deadline thread's can no longer be changed. */
	if (err == 0)
		err = set_affinity(r, tid, m, e);
	if (err == 0)
		err = set_policy(tid, m, e);
	if (err < 0)
		return err;
	if (syscall(SYS_ioprio_get, IOPRIO_WHO_PROCESS, tid) != m->ioprio &&
	    syscall(SYS_ioprio_set, IOPRIO_WHO_PROCESS, tid, m->ioprio) < 0)
		return error_set(e, errno, "tid %d: set its I/O priority to %#x", tid, m->ioprio);
	return 0;
}

const struct state_kind kind_sched = {
	.name = "task/sched",
	.type = FERRY__RECORD_TYPE__RECORD_SCHED,
	.scope = KIND_THREAD,
	.descriptor = &ferry__sched__descriptor,
	.take = sched_take,
	.check = sched_check,
	.finish = sched_finish,
};
