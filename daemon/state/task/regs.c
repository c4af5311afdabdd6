/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Registers, extended state and signal mask.
 *
 * General registers and mask are those the thread had when it was stopped (struct task, saved_*): by the time
 * take() runs the parasite has used the thread.  The extended state is read late, which is right: the
 * parasite is built without any instruction that would change it.
 *
 * rseq: a thread frozen inside a restartable sequence must have it aborted when it runs again.  The kernel
 * does that by itself if rseq_cs, a word in the thread's memory, names the sequence; but running the parasite
 * cleared the word (the thread was seen outside of the sequence).  So it is kept from the first stop and
 * written back last, before the thread runs.
 */
#include "state/task/task.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/rseq.h>
#include <stddef.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>

#include "arch/arch.h"
#include "procfs/procfs.h"
#include "proto/task.pb-c.h"
#include "state/task/message.h"
#include "state/task/restart.h"

static int refuse_foreign_abi(pid_t pid, struct error *e)
{
	char path[32], ident[EI_NIDENT] = {0};
	cleanup_free char *status = NULL;

	snprintf(path, sizeof(path), "/proc/%d/exe", pid);
	cleanup_close int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd >= 0 && pread_full(fd, ident, sizeof(ident), 0) == 0 && ident[EI_CLASS] == ELFCLASS32)
		return error_say(e, EOPNOTSUPP, "pid %d: is a 32-bit program, which cannot be moved yet",
				 pid);
	snprintf(path, sizeof(path), "/proc/%d/status", pid);
	if (read_file(path, &status) < 0)
		return 0; /* gone: found out elsewhere */

	const char *features = proc_field(status, "x86_Thread_features");

	if (features && strncmp(features, "shstk", 5) == 0)
		return error_say(e, EOPNOTSUPP, "pid %d: uses a shadow stack, which cannot be moved yet",
				 pid);
	return 0;
}

static int regs_preflight(struct capture *c, struct process *p, struct error *e)
{
	(void)c;
	return refuse_foreign_abi(process_living(p), e);
}

/* The call a thread is in, looking behind restart_syscall; -1: not known. */
static long call_number(const struct task *t, long nr)
{
	uint64_t at = arch_regs_ip(&t->saved_regs) - ARCH_SYSCALL_LEAD;
	union {
		long words[2];
		uint8_t bytes[16];
	} code;

	if (nr != SYS_restart_syscall)
		return nr;
	/* Up to the end of the instruction only: the page behind it may not be there. */
	uint64_t words = at & ~7ull;
	unsigned skip = at - words;

	for (unsigned i = 0; i < (skip + ARCH_SYSCALL_LEAD + 7) / 8; i++) {
		errno = 0;
		code.words[i] = ptrace(PTRACE_PEEKDATA, t->tid, words + i * 8, NULL);
		if (errno)
			return -1;
	}
	return arch_syscall_loaded(code.bytes + skip);
}

static int regs_take(struct capture *c, struct process *p, struct thread *t, struct batch *b, void *state,
		     struct error *e)
{
	const struct task *task = &t->task;
	cleanup_free void *xstate = NULL;
	size_t xstate_size;
	long nr;
	int64_t code;

	(void)b;
	(void)state;
	if (task->state != TASK_STOPPED)
		return error_say(e, EINVAL, "tid %d: is not in a ptrace stop", task->tid);
	if (!task->saved)
		return error_say(e, EINVAL, "tid %d: its registers were not kept when it was stopped",
				 task->tid);
	if (!arch_regs_native(&task->saved_regs))
		return error_say(e, EOPNOTSUPP, "tid %d: runs 32-bit code, which cannot be moved yet",
				 task->tid);

	int r = arch_xstate_get(task->tid, &xstate, &xstate_size);

	if (r < 0)
		return error_set(e, -r, "tid %d: read extended registers", task->tid);

	Ferry__Regs *m = MESSAGE_NEW(Ferry__Regs, ferry__regs);

	m->general = message_bytes(&task->saved_regs, sizeof(task->saved_regs));
	m->xstate = message_bytes(xstate, xstate_size);
	m->sigmask = task->saved_mask;
	m->rseq_cs = task->saved_rseq_cs;
	m->in_syscall = arch_regs_in_syscall(&task->saved_regs, &nr, &code);
	if (m->in_syscall) {
		m->syscall_nr = call_number(task, nr);
		m->syscall_code = code;
	}
	snapshot_put(c->snapshot, FERRY__RECORD_TYPE__RECORD_REGS, p->pid, task->tid, &m->base);
	return 0;
}

static int regs_check(struct rebuild *r, int32_t pid, int32_t tid, const ProtobufCMessage *msg,
		      struct error *e)
{
	const Ferry__Regs *m = (const Ferry__Regs *)msg;
	char why[160];

	(void)r;
	if (m->general.len != sizeof(struct arch_regs))
		return error_say(e, EPROTO, "pid %d, tid %d: the image holds %zu bytes of registers, not %zu",
				 pid, tid, m->general.len, sizeof(struct arch_regs));
	if (arch_xstate_check(m->xstate.data, m->xstate.len, why, sizeof(why)) < 0)
		return error_say(e, EOPNOTSUPP, "pid %d, tid %d: %s", pid, tid, why);
	return 0;
}

/* Registers as the thread is to start with. */
static void final_regs(const Ferry__Regs *m, struct arch_regs *regs)
{
	uint64_t args[6];

	memcpy(regs, m->general.data, sizeof(*regs));
	if (!m->in_syscall)
		return;
	for (unsigned i = 0; i < 6; i++)
		args[i] = arch_regs_arg(regs, i);
	switch (restart_rule(m->syscall_nr, m->syscall_code, args)) {
	case RESTART_AGAIN:
		for (unsigned i = 0; i < 6; i++)
			arch_regs_set_arg(regs, i, args[i]);
		arch_regs_restart_as(regs, m->syscall_nr);
		break;
	case RESTART_EINTR:
		arch_regs_end_syscall(regs, -EINTR);
		break;
	case RESTART_KEEP:
		arch_regs_end_syscall(regs, m->syscall_code);
		break;
	}
}

/* The kernel wants at least its own size; a smaller one (see arch_xstate_check) is filled up with unused
 * parts. */
static int set_xstate(pid_t tid, const Ferry__Regs *m)
{
	uint64_t mask;
	size_t here;

	arch_xstate_features(&mask, &here);
	if (m->xstate.len >= here)
		return arch_xstate_set(tid, m->xstate.data, m->xstate.len);

	cleanup_free uint8_t *x = xcalloc(1, here);

	memcpy(x, m->xstate.data, m->xstate.len);
	return arch_xstate_set(tid, x, here);
}

static int restore_rseq_cs(struct rebuild *r, struct process *p, struct thread *t, uint64_t rseq_cs)
{
	const Ferry__ThreadState *s = (const Ferry__ThreadState *)snapshot_find(
		r->snapshot, FERRY__RECORD_TYPE__RECORD_THREAD, p->pid, t->task.tid);

	if (!s || !s->rseq_addr)
		return 0;

	uint64_t at = s->rseq_addr + offsetof(struct rseq, rseq_cs);

	return ptrace(PTRACE_POKEDATA, t->task.tid, at, rseq_cs) < 0 ? -errno : 0;
}

static int regs_finish(struct rebuild *r, struct process *p, struct thread *t, const ProtobufCMessage *msg,
		       struct error *e)
{
	const Ferry__Regs *m = (const Ferry__Regs *)msg;
	pid_t tid = t->task.tid;
	struct arch_regs regs;
	int err;

	err = regs_check(r, p->pid, tid, msg, e);
	if (err < 0)
		return err;
	final_regs(m, &regs);
	err = arch_regs_set(tid, &regs);
	if (err < 0)
		return error_set(e, -err, "pid %d, tid %d: set registers", p->pid, tid);
	err = set_xstate(tid, m);
	if (err < 0)
		return error_set(e, -err, "pid %d, tid %d: set extended registers (%zu bytes)", p->pid, tid,
				 m->xstate.len);
	if (m->rseq_cs) {
		err = restore_rseq_cs(r, p, t, m->rseq_cs);
		if (err < 0)
			return error_set(e, -err, "pid %d, tid %d: write back rseq_cs", p->pid, tid);
	}
	return task_set_mask(&t->task, m->sigmask, e);
}

const struct state_kind kind_regs = {
	.name = "task/regs",
	.type = FERRY__RECORD_TYPE__RECORD_REGS,
	.scope = KIND_THREAD,
	.descriptor = &ferry__regs__descriptor,
	.preflight = regs_preflight,
	.take = regs_take,
	.check = regs_check,
	.finish = regs_finish,
};
