/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Seccomp filters.  The kernel hands out the classic BPF code of each filter of a stopped thread
 * (PTRACE_SECCOMP_GET_FILTER), oldest first, and its flags.  While we trace a thread its filters are
 * suspended, at the source so that our calls do not meet them, in skeletons so that they can be installed
 * before the rest is done.
 *
 * Threads that all have the same filters get them from their leader by SECCOMP_FILTER_FLAG_TSYNC, so that
 * they are one family again and a later TSYNC works.  Threads that differ get each its own.
 *
 * The strict mode is suspended in the same way; it is entered last of all, with the credentials.
 *
 * Refused: filters that ask a supervisor (SECCOMP_RET_USER_NOTIF), for its descriptor cannot be made again.
 */
#include "state/task/task.h"

#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>

#include "procfs/procfs.h"
#include "proto/task.pb-c.h"
#include "state/task/message.h"

#define MAX_CODE 4096 /* BPF_MAXINSNS */

/* --- source --------------------------------------------------------------------------------------------- */

/* A thread in strict mode has no filter that would show when it is stopped: what stops it must know
 * (freeze/task.h).
 */
static int seccomp_preflight(struct capture *c, struct process *p, struct error *e)
{
	(void)c;
	(void)e;
	for (size_t i = 0; i < p->n_threads; i++) {
		struct task *t = &p->threads[i]->task;
		struct proc_status s;
		struct error gone = ERROR_INIT;

		if (proc_status_read(p->pid, t->tid, &s, &gone) < 0)
			continue; /* it has ended */
		t->strict = s.seccomp == SECCOMP_MODE_STRICT;
		proc_status_deinit(&s);
	}
	return 0;
}

static int check_code(pid_t pid, pid_t tid, const struct sock_filter *code, size_t n, struct error *e)
{
	for (size_t i = 0; i < n; i++)
		if (code[i].code == (BPF_RET | BPF_K) &&
		    (code[i].k & SECCOMP_RET_ACTION_FULL) == SECCOMP_RET_USER_NOTIF)
			return error_say(e, EOPNOTSUPP,
					 "pid %d: a seccomp filter of thread %d asks a supervisor "
					 "(SECCOMP_RET_USER_NOTIF), which is not supported",
					 pid, tid);
	return 0;
}

/* 1: added, 0: there are no more. */
static int take_filter(pid_t pid, pid_t tid, unsigned long index, Ferry__Seccomp *m, struct error *e)
{
	struct sock_filter code[MAX_CODE];
	struct __ptrace_seccomp_metadata data = {.filter_off = index};
	long n = ptrace(PTRACE_SECCOMP_GET_FILTER, tid, index, code);

	if (n < 0 && (errno == ENOENT || (errno == EINVAL && !index)))
		return 0;
	if (n < 0)
		return error_set(
			e, errno, "pid %d: reading seccomp filter %lu of thread %d%s", pid, index, tid,
			errno == EACCES ? " (ferry lacks CAP_SYS_ADMIN, or has a filter itself)" : "");
	int r = check_code(pid, tid, code, n, e);

	if (r < 0)
		return r;
	Ferry__SeccompFilter *f = MESSAGE_NEW(Ferry__SeccompFilter, ferry__seccomp_filter);

	if (ptrace(PTRACE_SECCOMP_GET_METADATA, tid, sizeof(data), &data) >= 0)
		f->flags = data.flags;
	f->code = message_bytes(code, n * sizeof(code[0]));
	m->filters = xrealloc(m->filters, (m->n_filters + 1) * sizeof(*m->filters));
	m->filters[m->n_filters++] = f;
	return 1;
}

static bool same(const Ferry__Seccomp *a, const Ferry__Seccomp *b)
{
	size_t n = a ? a->n_filters : 0;

	if (n != (b ? b->n_filters : 0))
		return false;
	for (size_t i = 0; i < n; i++)
		if (a->filters[i]->flags != b->filters[i]->flags ||
		    a->filters[i]->code.len != b->filters[i]->code.len ||
		    memcmp(a->filters[i]->code.data, b->filters[i]->code.data, a->filters[i]->code.len))
			return false;
	return true;
}

/* Empty if the thread has none. */
static int read_filters(struct thread *t, Ferry__Seccomp **ret, struct error *e)
{
	Ferry__Seccomp *m = *ret = MESSAGE_NEW(Ferry__Seccomp, ferry__seccomp);
	int r = t->task.filtered;

	for (unsigned long i = 0; r > 0; i++)
		r = take_filter(t->task.pid, t->task.tid, i, m, e);
	return r;
}

/* With the leader, whose turn is first, for all threads of the process. */
static int seccomp_take(struct capture *c, struct process *p, struct thread *t, struct batch *b, void *state,
			struct error *e)
{
	bool alike = true, any = false;
	int r = 0;

	(void)b;
	(void)state;
	if (t != p->threads[0])
		return 0;
	cleanup_free Ferry__Seccomp **all = xcalloc(p->n_threads, sizeof(*all));

	for (size_t i = 0; i < p->n_threads && r >= 0; i++) {
		r = read_filters(p->threads[i], &all[i], e);
		any |= all[i]->n_filters > 0;
		alike &= same(all[0], all[i]);
	}
	for (size_t i = 0; i < p->n_threads; i++) {
		if (r < 0 || !any || (alike && i > 0) || !all[i]->n_filters) {
			if (all[i])
				protobuf_c_message_free_unpacked(&all[i]->base, NULL);
			continue;
		}
		all[i]->everywhere = alike && p->n_threads > 1;
		snapshot_put(c->snapshot, FERRY__RECORD_TYPE__RECORD_SECCOMP, p->pid, p->threads[i]->task.tid,
			     &all[i]->base);
	}
	return r;
}

/* --- destination ---------------------------------------------------------------------------------------- */

static int seccomp_check(struct rebuild *r, int32_t pid, int32_t tid, const ProtobufCMessage *msg,
			 struct error *e)
{
	const Ferry__Seccomp *m = (const Ferry__Seccomp *)msg;

	(void)r;
	if (prctl(PR_GET_SECCOMP) != 0)
		return error_say(
			e, EPERM,
			"pid %d, tid %d: has a seccomp filter, and so has this ferry, which could not "
			"suspend it",
			pid, tid);
	for (size_t i = 0; i < m->n_filters; i++) {
		size_t n = m->filters[i]->code.len;

		if (!n || n % sizeof(struct sock_filter) || n > MAX_CODE * sizeof(struct sock_filter))
			return error_say(e, EPROTO,
					 "pid %d, tid %d: the image has a seccomp filter of %zu bytes", pid,
					 tid, n);
	}
	return 0;
}

static int seccomp_build(struct rebuild *r, struct process *p, struct thread *t, const ProtobufCMessage *msg,
			 struct batch *b, struct error *e)
{
	const Ferry__Seccomp *m = (const Ferry__Seccomp *)msg;
	const Ferry__Creds *creds = (const Ferry__Creds *)snapshot_find(
		r->snapshot, FERRY__RECORD_TYPE__RECORD_CREDS, p->pid, t->task.tid);
	int x = seccomp_check(r, p->pid, t->task.tid, msg, e);

	if (x < 0)
		return x;
	/* Without privilege a filter needs it. */
	if (creds && creds->no_new_privs)
		batch_call(b, "set no_new_privs", SYS_prctl, ARG(PR_SET_NO_NEW_PRIVS), ARG(1), ARG(0), ARG(0),
			   ARG(0));
	for (size_t i = 0; i < m->n_filters; i++) {
		struct sock_fprog program = {.len = m->filters[i]->code.len / sizeof(struct sock_filter)};
		size_t code = batch_put(b, m->filters[i]->code.data, m->filters[i]->code.len);
		size_t at = batch_put(b, &program, sizeof(program));
		unsigned flags = m->filters[i]->flags | (m->everywhere ? SECCOMP_FILTER_FLAG_TSYNC : 0);

		batch_op(b, "place seccomp filter", PB_OP_STORE,
			 ARG_DATA(at + offsetof(struct sock_fprog, filter)), ARG_DATA(code), ARG(8));
		/* With TSYNC a thread that could not follow would be the result. */
		batch_accept_equal(b,
				   batch_call(b, "install seccomp filter", SYS_seccomp,
					      ARG(SECCOMP_SET_MODE_FILTER), ARG(flags), ARG_DATA(at)),
				   0);
	}
	return 0;
}

const struct state_kind kind_seccomp = {
	.name = "task/seccomp",
	.type = FERRY__RECORD_TYPE__RECORD_SECCOMP,
	.scope = KIND_THREAD,
	.descriptor = &ferry__seccomp__descriptor,
	.preflight = seccomp_preflight,
	.take = seccomp_take,
	.check = seccomp_check,
	.build = seccomp_build,
};
