/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* A target that does one thing when told, and is looked at by a backend in between. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/util.h"
#include "freeze/task.h"
#include "procfs/procfs.h"
#include "track/backend.h"

#define P 4096ul

static struct backend backend;

struct target {
	pid_t pid;
	int go, done; /* pipes */
	int mem;
	struct dirty_session *session;
	char text[512];
};

static void target_loop(int go, int done, void (*const steps[])(void))
{
	char n;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	while (read(go, &n, 1) == 1) {
		steps[(int)n]();
		if (write(done, &n, 1) != 1)
			break;
	}
	_exit(0);
}

static void tell(const struct target *t, char n)
{
	assert_int_equal(write(t->go, &n, 1), 1);
	assert_int_equal(read(t->done, &n, 1), 1);
}

static int64_t inject(void *ctx, long nr, const uint64_t args[6])
{
	struct error e = ERROR_INIT;
	int64_t ret;
	int r = task_syscall(ctx, nr, args, &ret, NULL, NULL, &e);

	return r < 0 ? r : ret;
}

static void attach(struct target *t)
{
	struct task task = {0};
	struct error e = ERROR_INIT;
	cleanup_close int pidfd = sys_pidfd_open(t->pid, 0);
	const struct dirty_target d = {.pid = t->pid, .pidfd = pidfd, .ctx = &task, .syscall = inject};

	assert_int_equal(task_seize(&task, t->pid, t->pid, false, &e), 0);
	assert_int_equal(task_interrupt(&task, &e), 0);
	assert_int_equal(task_wait_stopped(&task, 10000, &e), 0);
	assert_int_equal(task_save(&task, &e), 0);
	assert_int_equal(backend.ops->attach(&d, &t->session, t->text, sizeof(t->text)), 0);
	assert_int_equal(task_release(&task, &e), 0);
}

static void begin(struct target *t, void (*const steps[])(void))
{
	int go[2], done[2];
	char path[64];

	assert_int_equal(pipe2(go, O_CLOEXEC), 0);
	assert_int_equal(pipe2(done, O_CLOEXEC), 0);
	*t = (struct target){.pid = fork()};
	if (t->pid == 0)
		target_loop(go[0], done[1], steps);
	close(go[0]);
	close(done[1]);
	t->go = go[1];
	t->done = done[0];
	snprintf(path, sizeof(path), "/proc/%d/mem", t->pid);
	t->mem = open(path, O_RDONLY | O_CLOEXEC);
	tell(t, 0); /* sets up */
	attach(t);
}

static void end(struct target *t)
{
	backend.ops->detach(t->session);
	close(t->mem);
	kill(t->pid, SIGKILL);
	waitpid(t->pid, NULL, 0);
	close(t->go);
	close(t->done);
}

static void stop(pid_t pid)
{
	struct error e = ERROR_INIT;
	struct proc_stat s = {0};

	kill(pid, SIGSTOP);
	while (s.state != 'T')
		assert_int_equal(proc_stat_read(pid, 0, &s, &e), 0);
}

/* A pass over one range. The result of arm or collect. */
static ssize_t pass(struct target *t, bool arm, enum dirty_collect_mode mode, const struct dirty_vma *v,
		    uint32_t *flags)
{
	const struct dirty_backend_ops *ops = backend.ops;
	const struct dirty_range *r;
	ssize_t n;

	stop(t->pid);
	assert_int_equal(ops->begin(t->session, mode, t->text, sizeof(t->text)), 0);
	if (arm)
		n = ops->arm(t->session, v, t->text, sizeof(t->text));
	else
		n = ops->collect(t->session, v, mode, &r, t->text, sizeof(t->text));
	for (ssize_t i = 0; !arm && flags && i < n; i++)
		for (uint64_t a = r[i].start; a < r[i].end; a += P)
			flags[(a - v->start) / P] = r[i].flags;
	assert_int_equal(ops->end(t->session, mode, t->text, sizeof(t->text)), 0);
	kill(t->pid, SIGCONT);
	return n;
}
