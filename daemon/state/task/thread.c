/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What belongs to one thread: robust futex list, clear_child_tid, rseq, alternate signal stack, name, timer
 * slack, personality, machine-check policy.
 *
 * rseq_cs is set to zero before the area is registered: the memory may hold a stale pointer, and some
 * kernels follow it at once.  The right value is written at the very end (regs.c).
 */
#include "state/task/task.h"

#include <errno.h>
#include <linux/rseq.h>
#include <signal.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "proto/task.pb-c.h"
#include "state/task/message.h"

#ifndef PR_GET_TID_ADDRESS
#define PR_GET_TID_ADDRESS 40
#endif
#ifndef SS_AUTODISARM
#define SS_AUTODISARM (1U << 31)
#endif
#define COMM_SIZE 16

struct thread_asked {
	size_t tid_address, altstack, comm; /* data offsets */
	unsigned slack, personality, mce;   /* entries */
};

static int thread_ask(struct capture *c, struct process *p, struct thread *t, struct batch *b,
		      void **ret_state, struct error *e)
{
	struct thread_asked *a = xcalloc(1, sizeof(*a));

	(void)c;
	(void)p;
	(void)t;
	(void)e;
	a->tid_address = batch_reserve(b, sizeof(uint64_t));
	a->altstack = batch_reserve(b, sizeof(stack_t));
	a->comm = batch_reserve(b, COMM_SIZE);
	batch_call(b, "get clear_child_tid", SYS_prctl, ARG(PR_GET_TID_ADDRESS), ARG_DATA(a->tid_address));
	batch_call(b, "get signal stack", SYS_sigaltstack, ARG(0), ARG_DATA(a->altstack));
	batch_call(b, "get name", SYS_prctl, ARG(PR_GET_NAME), ARG_DATA(a->comm));
	a->slack = batch_call(b, "get timer slack", SYS_prctl, ARG(PR_GET_TIMERSLACK));
	a->personality = batch_call(b, "get personality", SYS_personality, ARG(0xffffffff));
	a->mce = batch_call(b, "get machine check policy", SYS_prctl, ARG(PR_MCE_KILL_GET), ARG(0), ARG(0),
			    ARG(0), ARG(0));
	batch_accept_any(b, a->mce);
	*ret_state = a;
	return 0;
}

static int thread_take(struct capture *c, struct process *p, struct thread *t, struct batch *b, void *state,
		       struct error *e)
{
	const struct thread_asked *a = state;
	pid_t tid = t->task.tid;
	uint64_t robust = 0;
	size_t robust_len = 0;
	stack_t altstack;

	if (syscall(SYS_get_robust_list, tid, &robust, &robust_len) < 0 && errno != ENOSYS)
		return error_set(e, errno, "tid %d: read its robust futex list", tid);

	Ferry__ThreadState *m = MESSAGE_NEW(Ferry__ThreadState, ferry__thread_state);

	m->robust_list = robust;
	m->robust_list_len = robust_len;
	memcpy(&m->clear_child_tid, batch_data(b, a->tid_address), sizeof(m->clear_child_tid));
	m->rseq_addr = t->task.rseq_addr;
	m->rseq_len = t->task.rseq_len;
	m->rseq_sig = t->task.rseq_sig;
	memcpy(&altstack, batch_data(b, a->altstack), sizeof(altstack));
	m->altstack_sp = (uint64_t)altstack.ss_sp;
	m->altstack_size = altstack.ss_size;
	m->altstack_flags = altstack.ss_flags & (int)(SS_DISABLE | SS_AUTODISARM);
	m->comm = xcalloc(1, COMM_SIZE + 1);
	memcpy(m->comm, batch_data(b, a->comm), COMM_SIZE);
	m->timerslack_ns = batch_result(b, a->slack);
	m->personality = batch_result(b, a->personality);
	m->mce_kill = batch_result(b, a->mce) < 0 ? PR_MCE_KILL_DEFAULT : batch_result(b, a->mce);
	snapshot_put(c->snapshot, FERRY__RECORD_TYPE__RECORD_THREAD, p->pid, tid, &m->base);
	return 0;
}

static int thread_check(struct rebuild *r, int32_t pid, int32_t tid, const ProtobufCMessage *msg,
			struct error *e)
{
	const Ferry__ThreadState *m = (const Ferry__ThreadState *)msg;

	(void)r;
	if (strlen(m->comm) >= COMM_SIZE)
		return error_say(e, EPROTO, "pid %d, tid %d: the name in the image is longer than %d bytes",
				 pid, tid, COMM_SIZE - 1);
	if (m->rseq_addr && syscall(SYS_rseq, NULL, 0, 0, 0) < 0 && errno == ENOSYS)
		return error_say(e, EOPNOTSUPP, "pid %d, tid %d: uses rseq, which this kernel does not have",
				 pid, tid);
	return 0;
}

static int thread_build(struct rebuild *r, struct process *p, struct thread *t, const ProtobufCMessage *msg,
			struct batch *b, struct error *e)
{
	const Ferry__ThreadState *m = (const Ferry__ThreadState *)msg;
	stack_t altstack = {
		.ss_sp = (void *)m->altstack_sp,
		.ss_size = m->altstack_size,
		.ss_flags = m->altstack_flags,
	};

	(void)r;
	(void)p;
	(void)t;
	(void)e;
	batch_call(b, "set clear_child_tid", SYS_set_tid_address, ARG(m->clear_child_tid));
	if (m->robust_list)
		batch_call(b, "set robust futex list", SYS_set_robust_list, ARG(m->robust_list),
			   ARG(m->robust_list_len));
	if (m->rseq_addr) {
		batch_op(b, "clear rseq_cs", PB_OP_STORE, ARG(m->rseq_addr + offsetof(struct rseq, rseq_cs)),
			 ARG(0), ARG(8));
		batch_call(b, "register rseq", SYS_rseq, ARG(m->rseq_addr), ARG(m->rseq_len), ARG(0),
			   ARG(m->rseq_sig));
	}
	batch_call(b, "set signal stack", SYS_sigaltstack, ARG_PUT(b, &altstack, sizeof(altstack)), ARG(0));
	batch_call(b, "set name", SYS_prctl, ARG(PR_SET_NAME), ARG_STR(b, m->comm));
	batch_call(b, "set timer slack", SYS_prctl, ARG(PR_SET_TIMERSLACK), ARG(m->timerslack_ns));
	batch_call(b, "set personality", SYS_personality, ARG(m->personality));
	if (m->mce_kill != PR_MCE_KILL_DEFAULT)
		batch_call(b, "set machine check policy", SYS_prctl, ARG(PR_MCE_KILL), ARG(PR_MCE_KILL_SET),
			   ARG(m->mce_kill), ARG(0), ARG(0));
	return 0;
}

const struct state_kind kind_thread = {
	.name = "task/thread",
	.type = FERRY__RECORD_TYPE__RECORD_THREAD,
	.scope = KIND_THREAD,
	.descriptor = &ferry__thread_state__descriptor,
	.ask = thread_ask,
	.take = thread_take,
	.check = thread_check,
	.build = thread_build,
};
