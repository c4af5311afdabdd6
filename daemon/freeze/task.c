/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One thread under ptrace: seize, stop, save, release.
 *
 * Stopping.  Between PTRACE_SEIZE and the stop that PTRACE_INTERRUPT asks for, the thread may first report a
 * signal it was about to take.  It is given the signal: the kernel sets up the handler's frame (or stops or
 * kills the process) and comes to our stop before one instruction of user code has run, so no signal needs to
 * be kept and queued again.
 *
 * Letting go.  PTRACE_DETACH, and the death of the tracer, make the kernel do its restart work as if a signal
 * had come, in every kind of stop.  So a thread that was interrupted in a system call goes on correctly once
 * rax and orig_rax are back, although our own system calls left it at another kind of stop; and the restart
 * block of a sleep is still there as nothing of ours waits with a relative timeout in that thread.
 */
#include "freeze/task.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/capability.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <time.h>

#include "base/util.h"
#include "freeze/rescue.h"
#include "procfs/procfs.h"

#define EVERYTHING   (~0ull)
#define OPT_COMMON   PTRACE_O_TRACESYSGOOD
#define OPT_SKELETON (PTRACE_O_EXITKILL | PTRACE_O_TRACECLONE | PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK)
#define EVENT_OF(st) ((unsigned)(st) >> 16)
#define RSEQ_CS      8 /* offset of rseq_cs in struct rseq */

static int gone(struct task *t)
{
	t->state = TASK_GONE;
	return -ESRCH;
}

/* --- seize and stop ------------------------------------------------------------------------------ */

static int explain_seize(struct task *t, int err, struct error *e)
{
	struct proc_status s = {0};
	struct error ignored = ERROR_INIT;
	pid_t tracer = 0;

	if (proc_status_read(t->pid, t->tid, &s, &ignored) == 0)
		tracer = s.tracer;
	proc_status_deinit(&s);
	if (tracer == gettid()) {
		t->seized = true; /* it took the place of another thread by exec */
		return 0;
	}
	if (tracer == 0)
		return error_set(e, err, "pid %d: thread %d cannot be traced", t->pid, t->tid);

	struct proc_stat stat;
	bool named = proc_stat_read(tracer, 0, &stat, &ignored) == 0;

	return error_say(e, err, "pid %d: thread %d is already traced by pid %d%s%s%s", t->pid, t->tid,
			 tracer, named ? " (" : "", named ? stat.comm : "", named ? ")" : "");
}

/* Filters are installed in skeletons that still have much to do. Where suspending is not possible, none can
 * be installed either (state/task/seccomp.c finds out). */
static unsigned long options_of_skeleton(void)
{
	static int can = -1;

	if (can < 0) {
		cap_t own = cap_get_proc();
		cap_flag_value_t admin = CAP_CLEAR;

		if (own)
			cap_get_flag(own, CAP_SYS_ADMIN, CAP_EFFECTIVE, &admin);
		cap_free(own);
		can = admin == CAP_SET && prctl(PR_GET_SECCOMP) == 0;
	}
	return OPT_SKELETON | (can ? PTRACE_O_SUSPEND_SECCOMP : 0);
}

int task_seize(struct task *t, pid_t pid, pid_t tid, bool skeleton, struct error *e)
{
	memset(t, 0, sizeof(*t));
	t->pid = pid;
	t->tid = tid;
	t->skeleton = skeleton;
	if (ptrace(PTRACE_SEIZE, tid, NULL, OPT_COMMON | (skeleton ? options_of_skeleton() : 0)) == 0) {
		t->seized = true;
		return 0;
	}
	int err = errno;
	struct proc_stat stat;
	struct error ignored = ERROR_INIT;

	/* A thread that has ended and is not yet reaped answers EPERM. */
	if (err == EPERM &&
	    (proc_stat_read(pid, tid, &stat, &ignored) < 0 || stat.state == 'Z' || stat.state == 'X'))
		err = ESRCH;
	return err == ESRCH ? gone(t) : explain_seize(t, err, e);
}

void task_adopt(struct task *t, pid_t pid, pid_t tid, bool skeleton)
{
	memset(t, 0, sizeof(*t));
	t->pid = pid;
	t->tid = tid;
	t->skeleton = skeleton;
	t->seized = true;
	t->state = TASK_STOPPED;
}

int task_interrupt(struct task *t, struct error *e)
{
	if (t->state == TASK_GONE)
		return -ESRCH;
	if (ptrace(PTRACE_INTERRUPT, t->tid, NULL, NULL) == 0)
		return 0;
	if (errno == ESRCH)
		return gone(t);
	return error_set(e, errno, "pid %d: thread %d cannot be interrupted", t->pid, t->tid);
}

static enum task_stop classify(struct task *t, int status, int *ret_sig)
{
	*ret_sig = 0;
	if (WIFEXITED(status) || WIFSIGNALED(status)) {
		t->state = TASK_GONE;
		return TASK_STOP_GONE;
	}
	t->state = TASK_STOPPED;
	*ret_sig = WSTOPSIG(status);
	switch (EVENT_OF(status)) {
	case 0:
		return *ret_sig == (SIGTRAP | 0x80) ? TASK_STOP_SYSCALL : TASK_STOP_SIGNAL;
	case PTRACE_EVENT_STOP:
		t->group_stopped = *ret_sig != SIGTRAP;
		return TASK_STOP_EVENT;
	default:
		return TASK_STOP_CHILD;
	}
}

static enum task_stop wait_stop(struct task *t, int options, int *ret_sig)
{
	int status;
	pid_t r;

	do
		r = waitpid(t->tid, &status, __WALL | options);
	while (r < 0 && errno == EINTR);
	if (r == 0)
		return TASK_STOP_NONE;
	if (r < 0) {
		t->state = TASK_GONE; /* ECHILD: reaped, or replaced by another thread's exec */
		return TASK_STOP_GONE;
	}
	return classify(t, status, ret_sig);
}

enum task_stop task_wait(struct task *t, int *ret_sig)
{
	return t->state == TASK_GONE ? TASK_STOP_GONE : wait_stop(t, 0, ret_sig);
}

enum task_stop task_poll(struct task *t, int *ret_sig)
{
	int sig;
	enum task_stop s = t->state == TASK_GONE ? TASK_STOP_GONE : wait_stop(t, WNOHANG, &sig);

	if (ret_sig)
		*ret_sig = sig;
	return s;
}

int task_resume(struct task *t, int request, int sig, struct error *e)
{
	if (t->state == TASK_GONE)
		return -ESRCH;
	if (ptrace(request, t->tid, NULL, sig) == 0) {
		t->state = TASK_RUNNING;
		return 0;
	}
	/* ESRCH also says "not stopped": then it has just been killed, and wait will tell. */
	if (errno == ESRCH)
		return gone(t);
	return error_set(e, errno, "pid %d: thread %d cannot be resumed", t->pid, t->tid);
}

int task_explain_timeout(struct task *t, int timeout_ms, struct error *e)
{
	cleanup_free char *path = xasprintf("/proc/%d/task/%d/wchan", t->pid, t->tid);
	cleanup_free char *wchan = NULL;
	struct error ignored = ERROR_INIT;
	struct proc_stat stat;
	char state = '?';

	if (proc_stat_read(t->pid, t->tid, &stat, &ignored) == 0)
		state = stat.state;
	if (read_file(path, &wchan) <= 0)
		free(TAKE_PTR(wchan));
	return error_say(e, ETIMEDOUT, "pid %d: thread %d did not stop within %d ms (state %c, in %s)",
			 t->pid, t->tid, timeout_ms, state, wchan ? wchan : "an unknown place of the kernel");
}

static void pause_us(unsigned us)
{
	nanosleep(&(struct timespec){.tv_nsec = us * 1000L}, NULL);
}

int task_wait_stopped(struct task *t, int timeout_ms, struct error *e)
{
	uint64_t start = now_ns(), limit = (uint64_t)timeout_ms * 1000000;
	int sig;

	for (;;) {
		switch (task_poll(t, &sig)) {
		case TASK_STOP_GONE:
			return 1;
		case TASK_STOP_EVENT:
			return 0;
		case TASK_STOP_SIGNAL:
			if (t->masked && sig != SIGSTOP)
				return error_say(e, EFAULT, "pid %d: thread %d got signal %d in the parasite",
						 t->pid, t->tid, sig);
			(void)task_resume(t, PTRACE_CONT, sig, e);
			break;
		case TASK_STOP_SYSCALL:
		case TASK_STOP_CHILD:
			(void)task_resume(t, PTRACE_CONT, 0, e);
			break;
		case TASK_STOP_NONE:
			break;
		}
		/* Most stop within microseconds. After that make room: on a busy machine sleeping a little
		 * brings us back sooner than yielding. */
		uint64_t past = now_ns() - start;

		if (past > limit)
			return task_explain_timeout(t, timeout_ms, e);
		if (past > 30000)
			pause_us(past < 1000000 ? 10 : 100);
	}
}

/* --- save and restore ---------------------------------------------------------------------------- */

static void read_rseq(struct task *t)
{
	struct __ptrace_rseq_configuration c = {0};

	if (ptrace(PTRACE_GET_RSEQ_CONFIGURATION, t->tid, sizeof(c), &c) != (long)sizeof(c) ||
	    !c.rseq_abi_pointer)
		return;
	t->rseq_addr = c.rseq_abi_pointer;
	t->rseq_len = c.rseq_abi_size;
	t->rseq_sig = c.signature;
	errno = 0;
	long word = ptrace(PTRACE_PEEKDATA, t->tid, t->rseq_addr + RSEQ_CS, NULL);

	t->saved_rseq_cs = errno ? 0 : (uint64_t)word;
}

/* Our calls must not meet the target's filter. The option is not set while the target's own code runs. */
static int suspend_seccomp(struct task *t, struct error *e)
{
	struct proc_status s = {0};
	struct error ignored = ERROR_INIT;

	if (ptrace(PTRACE_SETOPTIONS, t->tid, NULL,
		   OPT_COMMON | PTRACE_O_SUSPEND_SECCOMP | (t->skeleton ? OPT_SKELETON : 0)) == 0) {
		t->filtered = t->strict || ptrace(PTRACE_SECCOMP_GET_FILTER, t->tid, 0UL, NULL) >= 0;
		return 0;
	}
	int err = errno;

	if (err == ESRCH)
		return gone(t);
	int filtered = proc_status_read(t->pid, t->tid, &s, &ignored) == 0 ? s.seccomp : 0;

	proc_status_deinit(&s);
	return filtered ? error_set(e, err, "pid %d: the seccomp filter of thread %d cannot be suspended",
				    t->pid, t->tid)
			: 0;
}

int task_save(struct task *t, struct error *e)
{
	if (t->saved)
		return 0;
	if (t->state != TASK_STOPPED)
		return t->state == TASK_GONE
			       ? -ESRCH
			       : error_say(e, EBUSY, "pid %d: thread %d is not stopped", t->pid, t->tid);
	int r = arch_regs_get(t->tid, &t->saved_regs);

	if (r == -ESRCH)
		return gone(t);
	if (r == -ENOTSUP || (r == 0 && !arch_regs_native(&t->saved_regs)))
		return error_say(e, ENOTSUP, "pid %d: thread %d runs 32-bit code, which is not supported",
				 t->pid, t->tid);
	if (r < 0)
		return error_set(e, -r, "pid %d: registers of thread %d cannot be read", t->pid, t->tid);
	if (ptrace(PTRACE_GETSIGMASK, t->tid, sizeof(t->saved_mask), &t->saved_mask) < 0)
		return errno == ESRCH ? gone(t)
				      : error_set(e, errno, "pid %d: signal mask of thread %d cannot be read",
						  t->pid, t->tid);
	read_rseq(t);
	r = suspend_seccomp(t, e);
	if (r < 0)
		return r;
	t->saved = true;
	if (!t->skeleton)
		rescue_note_task(t);
	return 0;
}

int task_set_mask(struct task *t, uint64_t mask, struct error *e)
{
	if (ptrace(PTRACE_SETSIGMASK, t->tid, sizeof(mask), &mask) == 0)
		return 0;
	if (errno == ESRCH)
		return gone(t);
	return error_set(e, errno, "pid %d: signal mask of thread %d cannot be set", t->pid, t->tid);
}

static void disarm(struct task *t)
{
	if (!t->spin_armed)
		return;
	(void)ptrace(PTRACE_POKEDATA, t->tid, t->spin, 0L);
	t->spin_armed = false;
	rescue_note_task(t);
}

/* Registers first: from then on the thread is where it was, and what is missing (the mask) can be put back
 * later, by a supervisor too. Then nobody needs the code in the vdso any more. */
int task_put_back(struct task *t, struct error *e)
{
	if (!t->saved || t->state == TASK_GONE)
		return 0;
	int r = arch_regs_set(t->tid, &t->saved_regs);

	if (r < 0 && r != -ESRCH)
		error_set(e, -r, "pid %d: registers of thread %d cannot be put back", t->pid, t->tid);
	if (t->saved_rseq_cs)
		(void)ptrace(PTRACE_POKEDATA, t->tid, t->rseq_addr + RSEQ_CS, t->saved_rseq_cs);
	if (t->masked && r == 0) {
		r = task_set_mask(t, t->saved_mask, e);
		t->masked = r < 0;
	}
	disarm(t);
	return r == -ESRCH ? gone(t) : r;
}

int task_restore(struct task *t, struct error *e)
{
	if (!t->saved)
		return 0;
	int r = task_put_back(t, e);

	if (t->state != TASK_GONE &&
	    ptrace(PTRACE_SETOPTIONS, t->tid, NULL, OPT_COMMON | (t->skeleton ? options_of_skeleton() : 0)) <
		    0 &&
	    r == 0)
		r = -errno;
	t->masked = t->saved = false;
	rescue_clear_task(t);
	if (r == -ESRCH) {
		t->state = TASK_GONE;
		return 0;
	}
	return r;
}

/* --- outliving us --------------------------------------------------------------------------------- */

int task_disown(struct task *t, struct error *e)
{
	if (t->state == TASK_GONE)
		return -ESRCH;
	if (ptrace(PTRACE_SETOPTIONS, t->tid, NULL, OPT_COMMON) == 0) {
		t->skeleton = false;
		return 0;
	}
	return errno == ESRCH ? gone(t)
			      : error_set(e, errno, "pid %d: thread %d cannot be disowned", t->pid, t->tid);
}

/* With everything else blocked the SIGSTOP is what the task meets first, whatever waits beside it. */
int task_swallow_stop(struct task *t, struct error *e)
{
	if (t->state == TASK_GONE)
		return -ESRCH;
	if (ptrace(PTRACE_GETSIGMASK, t->tid, sizeof(t->saved_mask), &t->saved_mask) < 0)
		return errno == ESRCH ? gone(t)
				      : error_set(e, errno, "pid %d: signal mask of thread %d cannot be read",
						  t->pid, t->tid);
	int r = task_set_mask(t, EVERYTHING, e);

	return r < 0 ? r : task_resume(t, PTRACE_CONT, 0, e);
}

int task_swallow_stop_end(struct task *t, struct error *e)
{
	int sig = 0;
	enum task_stop s;

	while ((s = task_wait(t, &sig)) != TASK_STOP_SIGNAL || sig != SIGSTOP) {
		if (s == TASK_STOP_GONE)
			return -ESRCH;
		int r = task_resume(t, PTRACE_CONT, 0, e);

		if (r < 0)
			return r;
	}
	return task_set_mask(t, t->saved_mask, e);
}

/* --- release ------------------------------------------------------------------------------------- */

int task_cont(struct task *t, struct error *e)
{
	return task_resume(t, PTRACE_CONT, 0, e);
}

/* A dead thread is hidden from its real parent until its tracer has collected it. One that was killed a
 * moment ago may still be on its way. */
static void collect_dead(struct task *t)
{
	int status;

	for (int i = 0; i < 200; i++) {
		pid_t r = waitpid(t->tid, &status, __WALL | WNOHANG);

		if ((r < 0 && errno != EINTR) || (r > 0 && !WIFSTOPPED(status)))
			return;
		if (r == 0)
			pause_us(1000);
	}
}

int task_release(struct task *t, struct error *e)
{
	int r;

	if (!t->seized)
		return 0;
	if (t->state == TASK_RUNNING) {
		/* A stop may be waiting to be collected; else ask for one, as only stopped tasks can be
		 * detached. */
		if (task_interrupt(t, e) == 0) {
			r = task_wait_stopped(t, 1000, e);
			if (r < 0)
				return r;
		}
	}
	if (t->state == TASK_GONE) {
		collect_dead(t);
		rescue_clear_task(t);
		t->seized = t->saved = false;
		return 0;
	}
	r = task_restore(t, e);
	if (t->state != TASK_GONE && ptrace(PTRACE_DETACH, t->tid, NULL, NULL) < 0 && errno != ESRCH &&
	    r == 0)
		r = error_set(e, errno, "pid %d: thread %d cannot be released", t->pid, t->tid);
	t->state = TASK_RUNNING;
	t->seized = t->masked = false;
	return r;
}
