/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pending signals, with their data, in order: a queue per thread, and one shared by the process, which
 * travels with the leader.  A leader always has a record, another thread only if it has any.
 *
 * Capture reads the queues by ptrace, which consumes nothing.  A signal whose siginfo was dropped at the
 * sender because the queue was full has only its bit set; the kernel would deliver it with an empty siginfo,
 * so that is what is recorded.  (A signal about to be taken when we came has been taken: freeze/ lets the
 * kernel set up the handler before it stops the thread.)
 *
 * Rebuild queues them again from inside, where every si_code is allowed, with all signals blocked.  The
 * danger is the order between threads, whose batches run at the same time: the leader's sets the signal
 * actions, and setting one to "ignore" (or to a default that ignores) throws matching signals out of the
 * queues of all threads; and the leader's goes on to lower RLIMIT_SIGPENDING, after which a thread could not
 * queue any more.  So the leader, its actions set, sends a token (a real-time signal, all are blocked) to
 * each thread that has a queue, and waits for one back from each before it goes on; a thread waits for its
 * token, fills its queue and sends one back.  All tokens are taken out before the queue they lie in is
 * filled.
 *
 * SIGSTOP cannot be blocked: queued from inside it would stop the skeleton on the spot.  It is sent from
 * outside at the end, when the thread is in a ptrace stop, and acts when the thread is let go.
 */
#include "state/task/task.h"

#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <time.h>

#include "procfs/procfs.h"
#include "proto/task.pb-c.h"
#include "state/task/message.h"

#define MASK_SIZE     8
#define INFO_SIZE     128
#define TOKEN         64 /* any real-time signal does */
#define TOKEN_TIMEOUT 10 /* seconds */
#define PEEK_AT_ONCE  32

_Static_assert(sizeof(siginfo_t) == INFO_SIZE, "siginfo_t as the kernel has it");

static uint64_t bit(int sig)
{
	return 1ull << (sig - 1);
}

/* --- capture ------------------------------------------------------------------------------------------- */
struct queue {
	ProtobufCBinaryData *v;
	size_t n, cap;
	uint64_t seen; /* signals in it */
};

static void queue_add(struct queue *q, const siginfo_t *info)
{
	siginfo_t copy = *info;

	/* A value of the kernel's own timer code, which some versions show: it means nothing elsewhere. */
	if (copy.si_code == SI_TIMER)
		memset((char *)&copy + offsetof(siginfo_t, si_value) + sizeof(copy.si_value), 0, sizeof(int));
	if (q->n == q->cap) {
		q->cap = q->cap ? q->cap * 2 : 8;
		q->v = xrealloc(q->v, q->cap * sizeof(*q->v));
	}
	q->v[q->n++] = message_bytes(&copy, sizeof(copy));
	if (copy.si_signo >= 1 && copy.si_signo <= 64)
		q->seen |= bit(copy.si_signo);
}

static int queue_read(struct queue *q, pid_t tid, unsigned flags, struct error *e)
{
	siginfo_t infos[PEEK_AT_ONCE];
	uint64_t off = 0;

	for (;;) {
		struct __ptrace_peeksiginfo_args args = {.off = off, .flags = flags, .nr = PEEK_AT_ONCE};
		long n = ptrace(PTRACE_PEEKSIGINFO, tid, &args, infos);

		if (n < 0)
			return error_set(e, errno, "tid %d: read its pending signals", tid);
		for (long i = 0; i < n; i++)
			queue_add(q, &infos[i]);
		if (n < PEEK_AT_ONCE)
			return 0;
		off += n;
	}
}

/* Signals whose bit is set, but that are in no queue. */
static void queue_add_bare(struct queue *q, uint64_t pending)
{
	for (int sig = 1; sig <= 64; sig++) {
		if (pending & ~q->seen & bit(sig))
			queue_add(q, &(siginfo_t){.si_signo = sig, .si_code = SI_USER});
	}
}

static void queue_deinit(struct queue *q)
{
	for (size_t i = 0; i < q->n; i++)
		free(q->v[i].data);
	free(q->v);
}

static int sigpending_ask(struct capture *c, struct process *p, struct thread *t, struct batch *b,
			  void **ret_state, struct error *e)
{
	size_t *at = xmalloc(sizeof(*at));

	(void)c;
	(void)p;
	(void)t;
	(void)e;
	/* All signals are blocked in the parasite: this is the union of both queues. */
	*at = batch_reserve(b, MASK_SIZE);
	batch_call(b, "get pending signals", SYS_rt_sigpending, ARG_DATA(*at), ARG(MASK_SIZE));
	*ret_state = at;
	return 0;
}

static int read_queues(const struct task *t, uint64_t pending, struct queue *own, struct queue *shared,
		       struct error *e)
{
	struct proc_status s;
	int r;

	r = queue_read(own, t->tid, 0, e);
	if (r == 0)
		r = queue_read(shared, t->tid, PTRACE_PEEKSIGINFO_SHARED, e);
	if (r < 0)
		return r;
	if (!(pending & ~own->seen & ~shared->seen))
		return 0;
	r = proc_status_read(t->pid, t->tid, &s, e);
	if (r < 0)
		return r;
	queue_add_bare(own, s.sig_pnd);
	queue_add_bare(shared, s.shd_pnd);
	proc_status_deinit(&s);
	return 0;
}

static int sigpending_take(struct capture *c, struct process *p, struct thread *t, struct batch *b,
			   void *state, struct error *e)
{
	const struct task *task = &t->task;
	struct queue own = {0}, shared = {0};
	bool leader = t == p->threads[0], stands_in = leader && task->tid != p->pid;
	uint64_t pending;
	int r;

	memcpy(&pending, batch_data(b, *(size_t *)state), sizeof(pending));
	r = read_queues(task, pending, &own, &shared, e);
	if (r == 0 && ((own.seen | shared.seen) & bit(SIGKILL)))
		r = error_say(e, ESRCH, "pid %d: is being killed", p->pid);
	if (r < 0 || (!own.n && !leader)) {
		queue_deinit(&own);
		queue_deinit(&shared);
		return r;
	}

	Ferry__SigPending *m = MESSAGE_NEW(Ferry__SigPending, ferry__sig_pending);

	m->own = own.v;
	m->n_own = own.n;
	if (leader) {
		/* Those of the process are always with the leader, also with one that has ended. */
		Ferry__SigPending *all = stands_in ? MESSAGE_NEW(Ferry__SigPending, ferry__sig_pending) : m;

		all->shared = shared.v;
		all->n_shared = shared.n;
		if (stands_in)
			snapshot_put(c->snapshot, FERRY__RECORD_TYPE__RECORD_SIGPENDING, p->pid, p->pid,
				     &all->base);
	} else {
		queue_deinit(&shared);
	}
	snapshot_put(c->snapshot, FERRY__RECORD_TYPE__RECORD_SIGPENDING, p->pid, task->tid, &m->base);
	return 0;
}

/* --- rebuild ------------------------------------------------------------------------------------------- */
static int check_queue(int32_t tid, const ProtobufCBinaryData *v, size_t n, struct error *e)
{
	for (size_t i = 0; i < n; i++) {
		siginfo_t info;

		if (v[i].len != sizeof(info))
			return error_say(e, EPROTO, "tid %d: the image has a siginfo of %zu bytes, not %d",
					 tid, v[i].len, INFO_SIZE);
		memcpy(&info, v[i].data, sizeof(info));
		if (info.si_signo < 1 || info.si_signo > 64 || info.si_signo == SIGKILL)
			return error_say(e, EPROTO, "tid %d: the image has signal %d pending", tid,
					 info.si_signo);
	}
	return 0;
}

static int sigpending_check(struct rebuild *r, int32_t pid, int32_t tid, const ProtobufCMessage *msg,
			    struct error *e)
{
	const Ferry__SigPending *m = (const Ferry__SigPending *)msg;
	int err;

	(void)r;
	(void)pid;
	err = check_queue(tid, m->own, m->n_own, e);
	return err < 0 ? err : check_queue(tid, m->shared, m->n_shared, e);
}

static int signal_of(const ProtobufCBinaryData *d)
{
	int sig;

	memcpy(&sig, d->data, sizeof(sig));
	return sig;
}

static void requeue(struct batch *b, pid_t pid, pid_t tid, const ProtobufCBinaryData *v, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		int sig = signal_of(&v[i]);

		if (sig == SIGSTOP)
			continue;

		size_t at = batch_put(b, v[i].data, v[i].len);

		if (tid)
			batch_call(b, "queue signal of thread", SYS_rt_tgsigqueueinfo, ARG(pid), ARG(tid),
				   ARG(sig), ARG_DATA(at));
		else
			batch_call(b, "queue signal of process", SYS_rt_sigqueueinfo, ARG(pid), ARG(sig),
				   ARG_DATA(at));
	}
}

static void send_token(struct batch *b, pid_t pid, pid_t tid)
{
	batch_call(b, "tell thread to go on", SYS_tgkill, ARG(pid), ARG(tid), ARG(TOKEN));
}

static void wait_token(struct batch *b)
{
	struct timespec timeout = {.tv_sec = TOKEN_TIMEOUT};
	uint64_t set = bit(TOKEN);
	struct batch_arg args[] = {
		ARG_PUT(b, &set, sizeof(set)),
		ARG(0),
		ARG_PUT(b, &timeout, sizeof(timeout)),
		ARG(MASK_SIZE),
	};

	batch_accept_equal(
		b, batch_add(b, "wait for other thread", PB_OP_REPEAT_EINTR, SYS_rt_sigtimedwait, 4, args),
		TOKEN);
}

/* In the leader's batch: let the other threads that have a record fill their queues. */
static void run_other_queues(struct rebuild *r, struct process *p, struct batch *b)
{
	const struct snapshot *s = r->snapshot;
	size_t others = 0;

	for (size_t i = 0; i < s->n; i++) {
		if (s->r[i].type != FERRY__RECORD_TYPE__RECORD_SIGPENDING || s->r[i].pid != p->pid ||
		    s->r[i].tid == p->pid)
			continue;
		send_token(b, p->pid, s->r[i].tid);
		others++;
	}
	while (others--)
		wait_token(b);
}

static int sigpending_build(struct rebuild *r, struct process *p, struct thread *t,
			    const ProtobufCMessage *msg, struct batch *b, struct error *e)
{
	const Ferry__SigPending *m = (const Ferry__SigPending *)msg;
	pid_t tid = t->task.tid;
	int err = sigpending_check(r, p->pid, tid, msg, e);

	if (err < 0)
		return err;
	if (tid == p->pid) {
		run_other_queues(r, p, b);
		requeue(b, p->pid, tid, m->own, m->n_own);
		requeue(b, p->pid, 0, m->shared, m->n_shared);
	} else {
		wait_token(b);
		requeue(b, p->pid, tid, m->own, m->n_own);
		send_token(b, p->pid, p->pid);
	}
	return 0;
}

static bool has_stop(const ProtobufCBinaryData *v, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		if (signal_of(&v[i]) == SIGSTOP)
			return true;
	}
	return false;
}

static int sigpending_finish(struct rebuild *r, struct process *p, struct thread *t,
			     const ProtobufCMessage *msg, struct error *e)
{
	const Ferry__SigPending *m = (const Ferry__SigPending *)msg;
	pid_t tid = t->task.tid;

	(void)r;
	if (has_stop(m->own, m->n_own) && syscall(SYS_tgkill, p->pid, tid, SIGSTOP) < 0)
		return error_set(e, errno, "pid %d, tid %d: send SIGSTOP, which was pending", p->pid, tid);
	if (has_stop(m->shared, m->n_shared) && kill(p->pid, SIGSTOP) < 0)
		return error_set(e, errno, "pid %d: send SIGSTOP, which was pending", p->pid);
	return 0;
}

const struct state_kind kind_sigpending = {
	.name = "task/sigpending",
	.type = FERRY__RECORD_TYPE__RECORD_SIGPENDING,
	.scope = KIND_THREAD,
	.descriptor = &ferry__sig_pending__descriptor,
	.ask = sigpending_ask,
	.take = sigpending_take,
	.check = sigpending_check,
	.build = sigpending_build,
	.finish = sigpending_finish,
};
