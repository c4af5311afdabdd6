/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The root of a skeleton tree: a process of ours with the wanted pid that executes the stub.
 *
 * It is our child (or sibling) where the caller wants to wait for it.  Where the caller is going to end, it
 * is made an orphan at once, by a helper between us and it: a root that asked for a signal at its parent's
 * death must not get it from our end.  A root whose session leader is dead is made by a helper with the
 * leader's pid, which founds the session anew and ends.
 */
#include "engine/family.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "base/util.h"

/* @pid 0: any. */
static pid_t clone_with_pid(pid_t pid, bool sibling)
{
	struct clone_args a = {
		.flags = sibling ? CLONE_PARENT : 0,
		.exit_signal = sibling ? 0 : SIGCHLD,
		.set_tid = pid ? (uintptr_t)&pid : 0,
		.set_tid_size = pid ? 1 : 0,
	};

	return syscall(SYS_clone3, &a, sizeof(a));
}

/* Between clone and exec, in the child: only system calls. It ends with us: nobody else may have the other
 * end of @go. */
static void __attribute__((noreturn)) root_child(int stub, const int go[2], int report)
{
	static char *const argv[] = {"ferry-skeleton", NULL}, *const envp[] = {NULL};
	sigset_t all;
	char c;

	close(go[1]);
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, NULL);
	if (read(go[0], &c, 1) == 1)
		syscall(SYS_execveat, stub, "", argv, envp, AT_EMPTY_PATH);
	int err = errno;

	if (write(report, &err, sizeof(err)) < 0)
		_exit(126);
	_exit(127);
}

/* Is it held by a zombie, or free by now? */
static bool pid_will_be_free(pid_t pid)
{
	cleanup_free char *path = xasprintf("/proc/%d/stat", pid);
	cleanup_free char *text = NULL;
	ssize_t n = read_file(path, &text);

	if (n < 0)
		return n == -ENOENT || n == -ESRCH;
	const char *p = strrchr(text, ')');

	return p && p[1] == ' ' && p[2] == 'Z';
}

/* The clone, tried again while the pid belongs to a zombie that is only not reaped yet. -errno. */
static pid_t clone_patiently(pid_t pid, bool sibling)
{
	for (int i = 0;; i++) {
		pid_t r = clone_with_pid(pid, sibling);

		if (r >= 0)
			return r;
		int err = errno;

		if (err != EEXIST || i == 100 || !pid_will_be_free(pid))
			return -err;
		usleep(20000);
	}
}

/* In the helper: make the root, tell the errno (0: made) by the exit status, end. */
static void __attribute__((noreturn))
helper(const Ferry__TreeProcess *tp, bool founds, bool orphan, int stub, const int go[2], int report)
{
	if (founds)
		setsid();
	pid_t pid = clone_patiently(tp->pid, !orphan);

	if (pid == 0)
		root_child(stub, go, report);
	_exit(pid < 0 ? -pid : 0);
}

static int clone_by_helper(const struct skeletons *s, const Ferry__TreeProcess *tp, bool founds, int stub,
			   const int go[2], int report)
{
	int status;
	pid_t h = clone_patiently(founds ? tp->sid : 0, s->sibling);

	if (h == 0)
		helper(tp, founds, s->detached, stub, go, report);
	if (h < 0)
		return h;
	/* A sibling's helper is our parent's child: it ends by itself, and the root is waited for below. */
	if (s->sibling)
		return 0;
	while (waitpid(h, &status, 0) < 0)
		if (errno != EINTR) /* it makes the root, whoever wants us to stop */
			return -errno;
	return WIFEXITED(status) ? -WEXITSTATUS(status) : -EIO;
}

static int clone_root(const struct skeletons *s, const Ferry__TreeProcess *tp, bool dead_session, int stub,
		      const int go[2], int report, struct error *e)
{
	int r;

	if (dead_session || (s->detached && !s->sibling)) {
		r = clone_by_helper(s, tp, dead_session, stub, go, report);
	} else {
		r = clone_patiently(tp->pid, s->sibling);
		if (r == 0)
			root_child(stub, go, report);
		r = MIN(r, 0);
	}
	if (r == -EEXIST)
		return error_say(e, EEXIST, "pid %d (%s) is taken here", tp->pid, tp->comm);
	return r < 0 ? error_set(e, -r, "make the root process with pid %d", tp->pid) : 0;
}

static int start_stub(struct process *p, int go, int report, struct error *e)
{
	int err = 0;

	if (write(go, "", 1) != 1)
		return error_set(e, errno, "start the stub of pid %d", p->pid);
	/* The report pipe is closed by the exec: end of file is success. */
	if (read(report, &err, sizeof(err)) == sizeof(err))
		return error_set(e, err, "execute the stub as pid %d", p->pid);
	int r = task_interrupt(&p->threads[0]->task, e);

	if (r < 0)
		return r;
	r = task_wait_stopped(&p->threads[0]->task, 10000, e);
	return r > 0 ? error_say(e, ESRCH, "the stub of pid %d ended at once", p->pid) : r;
}

int family_make_root(struct skeletons *s, const Ferry__TreeProcess *tp, bool dead_session, struct error *e)
{
	cleanup_close int stub = stub_memfd(e);
	int go[2] = {-1, -1}, report[2] = {-1, -1};
	if (stub < 0)
		return stub;
	if (pipe2(go, O_CLOEXEC) < 0 || pipe2(report, O_CLOEXEC) < 0)
		return error_set(e, errno, "pipe");
	int r = clone_root(s, tp, dead_session, stub, go, report[1], e);

	close(go[0]);
	close(report[1]);
	if (r >= 0) {
		struct process *p = tree_add_process(s->tree, tp->pid, NULL);
		struct thread *t = process_add_thread(p, tp->pid);

		p->sid = getsid(tp->pid);
		p->pgid = getpgid(tp->pid);
		r = task_seize(&t->task, tp->pid, tp->pid, true, e);
		if (r >= 0)
			r = start_stub(p, go[1], report[0], e);
		if (r == -ESRCH && !error_is(e))
			error_say(e, ESRCH, "the root process with pid %d ended at once", tp->pid);
	}
	close(go[1]);
	close(report[0]);
	return r;
}
