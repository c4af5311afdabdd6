/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A system call in a stopped thread, by ptrace: registers are set to a system call instruction and the thread
 * runs from the entry stop to the exit stop of that one call; it never gets behind the instruction.  (Ending
 * on a breakpoint would reset the target's SIGTRAP handler.)
 *
 * If this process is killed in between, the kernel lets the thread go with our registers, and it does run on
 * behind the instruction.  So the instruction is not one of the target's own: the last bytes of the vdso,
 * which are padding, get a system call followed by an endless loop for as long as it is needed.  There the
 * thread waits, all signals blocked, for the supervisor (freeze/rescue.c).
 */
#include "freeze/task.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>

#include "base/util.h"
#include "freeze/rescue.h"
#include "procfs/procfs.h"

#define SEARCH_MAX      (256 * 1024) /* of each mapping */
#define IN_LOOP_NS      20000        /* a short call has ended by then */
#define LOOP_TIMEOUT_MS 10000
/* The kernel's own (include/linux/errno.h): seen only by a tracer. */
#define ERESTARTSYS           512
#define ERESTART_RESTARTBLOCK 516

/* The unused end of the vdso, if it is unused. */
static uint64_t find_spin(const uint8_t *code, size_t size, uint64_t addr)
{
	static const uint8_t zero[16];
	size_t off = size - sizeof(zero);

	if (size < sizeof(zero) * 2)
		return 0;
	if (memcmp(code + off - sizeof(zero), zero, sizeof(zero)) != 0)
		return 0;
	bool empty = memcmp(code + off, zero, sizeof(zero)) == 0;
	bool ours = memcmp(code + off, arch_spin_code, ARCH_SPIN_SIZE) == 0 &&
		    memcmp(code + off + ARCH_SPIN_SIZE, zero, sizeof(zero) - ARCH_SPIN_SIZE) == 0;

	return empty || ours ? addr + off : 0;
}

static bool search_vma(struct task *t, int mem, const struct proc_vma *v, bool spin)
{
	size_t size = MIN(v->end - v->start, (uint64_t)SEARCH_MAX);
	cleanup_free uint8_t *code = xmalloc(size);
	ssize_t n = pread(mem, code, size, (off_t)v->start);

	if (n <= 0)
		return false;
	if (spin && strcmp(v->path, "[vdso]") == 0)
		t->spin = find_spin(code, (size_t)n, v->start);
	ssize_t off = arch_find_syscall(code, (size_t)n);

	if (off >= 0)
		t->syscall_insn = v->start + (uint64_t)off;
	if (t->spin)
		t->syscall_insn = t->spin;
	return t->syscall_insn != 0;
}

static int search(struct task *t, bool spin, struct error *e)
{
	struct error unread = ERROR_INIT;
	struct proc_maps maps = {0};
	int r = proc_maps_read(t->tid, false, &maps, &unread);

	if (r == -ESRCH || r == -ENOENT || (r == 0 && maps.n == 0)) {
		proc_maps_deinit(&maps);
		t->state = TASK_GONE; /* its memory is gone: it has been killed */
		return -ESRCH;
	}
	if (r < 0)
		return error_say(e, -r, "%s", unread.text);
	cleanup_free char *path = xasprintf("/proc/%d/mem", t->tid);
	cleanup_close int mem = open(path, O_RDONLY | O_CLOEXEC);

	for (int pass = 0; mem >= 0 && pass < 2 && !t->syscall_insn; pass++)
		for (size_t i = 0; i < maps.n && !t->syscall_insn; i++) {
			bool vdso = strcmp(maps.v[i].path, "[vdso]") == 0;

			if ((maps.v[i].prot & PROT_EXEC) && vdso == (pass == 0) &&
			    maps.v[i].end <= arch_task_size())
				search_vma(t, mem, &maps.v[i], spin);
		}
	proc_maps_deinit(&maps);
	if (t->syscall_insn)
		return 0;
	return error_say(e, ENOEXEC, "pid %d: no system call instruction found in its memory", t->pid);
}

int task_find_syscall(struct task *t, struct error *e)
{
	return search(t, !t->skeleton, e);
}

/* The log first, then the change. */
static int arm(struct task *t, struct error *e)
{
	long word;

	if (!t->spin || t->syscall_insn != t->spin || t->spin_armed)
		return 0;
	memcpy(&word, arch_spin_code, sizeof(word));
	t->spin_armed = true;
	rescue_note_task(t);
	if (ptrace(PTRACE_POKEDATA, t->tid, t->spin, word) == 0)
		return 0;
	int err = errno;

	t->spin_armed = false;
	if (err == ESRCH) {
		t->state = TASK_GONE;
		return -ESRCH;
	}
	/* A sealed vdso, perhaps: do without. */
	t->spin = t->syscall_insn = 0;
	int r = search(t, false, e);

	rescue_note_task(t);
	return r;
}

static int prepare(struct task *t, long nr, const uint64_t args[6], struct error *e)
{
	static const uint64_t no_args[6];
	struct arch_regs regs = t->saved_regs;
	int r;

	if (t->state != TASK_STOPPED || (!t->saved && !t->skeleton))
		return t->state == TASK_GONE
			       ? -ESRCH
			       : error_say(e, EBUSY, "pid %d: thread %d is not stopped and saved", t->pid,
					   t->tid);
	if (!t->syscall_insn) {
		r = task_find_syscall(t, e);
		if (r < 0)
			return r;
	}
	r = arm(t, e);
	if (r < 0)
		return r;
	if (!t->masked) {
		t->masked = true;
		if (t->saved && !t->skeleton)
			rescue_note_task(t);
		r = task_set_mask(t, ~0ull, e);
		if (r < 0)
			return r;
	}
	if (!t->saved)
		r = arch_regs_get(t->tid, &regs);
	if (r == 0) {
		arch_regs_syscall(&regs, t->syscall_insn, nr, args ? args : no_args);
		r = arch_regs_set(t->tid, &regs);
	}
	if (r == -ESRCH)
		t->state = TASK_GONE;
	return r < 0 && r != -ESRCH
		       ? error_set(e, -r, "pid %d: registers of thread %d cannot be set", t->pid, t->tid)
		       : r;
}

static int new_child(struct task *t, task_new_child_fn on_child, void *ctx, struct error *e)
{
	unsigned long child = 0;
	int status;

	if (ptrace(PTRACE_GETEVENTMSG, t->tid, NULL, &child) < 0)
		return error_set(e, errno, "pid %d: the child of thread %d is unknown", t->pid, t->tid);
	while (waitpid((pid_t)child, &status, __WALL) < 0)
		if (errno != EINTR)
			return error_set(e, errno, "pid %d: no stop of its child %lu", t->pid, child);
	if (WIFSTOPPED(status) && on_child)
		on_child(ctx, (pid_t)child);
	return 0;
}

/* From the entry stop to the exit stop. */
static int run_between_stops(struct task *t, long nr, task_new_child_fn on_child, void *ctx, struct error *e)
{
	int sig = 0, r = 0;

	for (int stops = 0; r == 0 && stops < 2;) {
		int give = sig;

		sig = 0;
		r = task_resume(t, PTRACE_SYSCALL, give, e);
		if (r < 0)
			break;
		do {
			int got;

			switch (task_wait(t, &got)) {
			case TASK_STOP_SYSCALL:
				stops++;
				break;
			case TASK_STOP_CHILD:
				r = new_child(t, on_child, ctx, e);
				break;
			case TASK_STOP_SIGNAL:
				/* SIGSTOP cannot be blocked: it takes effect on the others and shows at the
				 * release. */
				if (got == SIGSTOP)
					sig = got;
				else
					r = error_say(e, EFAULT, "pid %d: signal %d in system call %ld",
						      t->pid, got, nr);
				break;
			case TASK_STOP_GONE:
				r = -ESRCH;
				break;
			default:
				break;
			}
		} while (t->state == TASK_RUNNING);
	}
	return r;
}

/* Is it behind the call, in the endless loop? One that was interrupted is yet to be restarted. */
static bool is_behind(const struct task *t, const struct arch_regs *regs)
{
	uint64_t ip = arch_regs_ip(regs);
	int64_t code;
	long nr;

	return ip > t->spin && ip < t->spin + ARCH_SPIN_SIZE &&
	       (!arch_regs_in_syscall(regs, &nr, &code) || code > -ERESTARTSYS ||
		code < -ERESTART_RESTARTBLOCK);
}

/*
 * Without a stop at the entry: there the filter of a thread is still to come, and a thread that stood there
 * when we are killed would meet it.  So it runs through the call into the endless loop, where it is stopped.
 * When we are killed in the meantime it takes longer until the kernel lets go of it than it takes to get into
 * the call.
 */
static int run_into_loop(struct task *t, struct error *e)
{
	struct arch_regs regs;

	for (;;) {
		int r = task_resume(t, PTRACE_CONT, 0, e);

		if (r < 0)
			return r;
		nanosleep(&(struct timespec){.tv_nsec = IN_LOOP_NS}, NULL);
		r = task_interrupt(t, e);
		if (r == 0)
			r = task_wait_stopped(t, LOOP_TIMEOUT_MS, e);
		if (r != 0)
			return r > 0 ? -ESRCH : r;
		r = arch_regs_get(t->tid, &regs);
		if (r == -ESRCH)
			t->state = TASK_GONE;
		if (r < 0 || is_behind(t, &regs))
			return r;
	}
}

int task_syscall(struct task *t, long nr, const uint64_t args[6], int64_t *ret, task_new_child_fn on_child,
		 void *ctx, struct error *e)
{
	struct arch_regs regs;
	int r = prepare(t, nr, args, e);

	if (r == 0)
		r = t->filtered && t->spin_armed ? run_into_loop(t, e)
						 : run_between_stops(t, nr, on_child, ctx, e);
	if (r == 0) {
		r = arch_regs_get(t->tid, &regs);
		if (r == -ESRCH)
			t->state = TASK_GONE;
		else if (r < 0)
			error_set(e, -r, "pid %d: result of system call %ld", t->pid, nr);
	}
	if (r == 0)
		*ret = arch_regs_result(&regs);
	int undo = t->skeleton ? 0 : task_put_back(t, e);

	return r ? r : undo;
}

int task_end_first(struct task *t, int status, struct error *e)
{
	uint64_t limit = now_ns() + LOOP_TIMEOUT_MS * 1000000ull;
	struct error gone = ERROR_INIT;
	struct proc_stat st;
	int r = prepare(t, SYS_exit, (uint64_t[6]){(uint64_t)status}, e);

	if (r == 0)
		r = task_resume(t, PTRACE_CONT, 0, e);
	/* waitpid(2) has nothing to tell of it as long as others live. */
	while (r == 0 && proc_stat_read(t->pid, t->tid, &st, &gone) >= 0 && st.state != 'Z' &&
	       st.state != 'X') {
		if (now_ns() > limit)
			return error_say(e, ETIMEDOUT, "pid %d: its first thread did not end", t->pid);
		nanosleep(&(struct timespec){.tv_nsec = IN_LOOP_NS}, NULL);
	}
	if (r == 0)
		t->state = TASK_GONE;
	return r;
}
