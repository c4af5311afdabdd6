/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Signal actions of a process.  Only those that differ from the default are kept, all are set: a skeleton may
 * have inherited ignored signals from the daemon.
 */
#include "state/task/task.h"

#include <errno.h>
#include <signal.h>
#include <sys/syscall.h>

#include "proto/task.pb-c.h"
#include "state/task/message.h"

#define SIGNALS   64
#define MASK_SIZE 8

/* As rt_sigaction(2) has it, which is not the struct of libc. */
struct kernel_action {
	uint64_t handler, flags, restorer, mask;
};
_Static_assert(sizeof(struct kernel_action) == 32, "layout of the kernel");

static bool settable(int sig)
{
	return sig != SIGKILL && sig != SIGSTOP;
}

static int sigactions_ask(struct capture *c, struct process *p, struct thread *t, struct batch *b,
			  void **ret_state, struct error *e)
{
	size_t *at = xmalloc(sizeof(*at));

	(void)c;
	(void)p;
	(void)t;
	(void)e;
	*at = batch_reserve(b, SIGNALS * sizeof(struct kernel_action));
	for (int sig = 1; sig <= SIGNALS; sig++) {
		if (settable(sig))
			batch_call(b, "get signal action", SYS_rt_sigaction, ARG(sig), ARG(0),
				   ARG_DATA(*at + (sig - 1) * sizeof(struct kernel_action)), ARG(MASK_SIZE));
	}
	*ret_state = at;
	return 0;
}

static int sigactions_take(struct capture *c, struct process *p, struct thread *t, struct batch *b,
			   void *state, struct error *e)
{
	const size_t *at = state;
	Ferry__SigActions *m = MESSAGE_NEW(Ferry__SigActions, ferry__sig_actions);

	(void)t;
	(void)e;
	m->actions = xcalloc(SIGNALS, sizeof(m->actions[0]));
	for (int sig = 1; sig <= SIGNALS; sig++) {
		struct kernel_action a;

		memcpy(&a, batch_data(b, *at + (sig - 1) * sizeof(a)), sizeof(a));
		if (!a.handler && !a.flags && !a.mask && !a.restorer)
			continue;

		Ferry__SigAction *s = MESSAGE_NEW(Ferry__SigAction, ferry__sig_action);

		s->signal = sig;
		s->handler = a.handler;
		s->flags = a.flags;
		s->restorer = a.restorer;
		s->mask = a.mask;
		m->actions[m->n_actions++] = s;
	}
	snapshot_put(c->snapshot, FERRY__RECORD_TYPE__RECORD_SIGACTIONS, p->pid, 0, &m->base);
	return 0;
}

static int sigactions_build(struct rebuild *r, struct process *p, struct thread *t,
			    const ProtobufCMessage *msg, struct batch *b, struct error *e)
{
	const Ferry__SigActions *m = (const Ferry__SigActions *)msg;
	struct kernel_action actions[SIGNALS] = {0};

	(void)r;
	(void)t;
	for (size_t i = 0; i < m->n_actions; i++) {
		const Ferry__SigAction *s = m->actions[i];

		if (s->signal < 1 || s->signal > SIGNALS)
			return error_say(e, EPROTO, "pid %d: the image has an action for signal %d", p->pid,
					 s->signal);
		actions[s->signal - 1] = (struct kernel_action){s->handler, s->flags, s->restorer, s->mask};
	}

	size_t at = batch_put(b, actions, sizeof(actions));

	for (int sig = 1; sig <= SIGNALS; sig++) {
		if (settable(sig))
			batch_call(b, "set signal action", SYS_rt_sigaction, ARG(sig),
				   ARG_DATA(at + (sig - 1) * sizeof(actions[0])), ARG(0), ARG(MASK_SIZE));
	}
	return 0;
}

const struct state_kind kind_sigactions = {
	.name = "task/sigactions",
	.type = FERRY__RECORD_TYPE__RECORD_SIGACTIONS,
	.scope = KIND_PROCESS,
	.descriptor = &ferry__sig_actions__descriptor,
	.ask = sigactions_ask,
	.take = sigactions_take,
	.build = sigactions_build,
};
