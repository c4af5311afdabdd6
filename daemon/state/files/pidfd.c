/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Process descriptors.  One of a task of the tree is opened again once that is there.  One of a process that
 * is dead and reaped refers to nothing any more but the way it ended: at the destination a helper ends in the
 * same way, after all descriptors of it were opened, and is reaped.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "base/util.h"
#include "procfs/procfs.h"
#include "state/files/files.h"

struct info { /* struct pidfd_info of Linux 6.13, PIDFD_INFO_EXIT of 6.15 */
	uint64_t mask, cgroupid;
	uint32_t pid, tgid, ppid, ids[8];
	int32_t exit_code;
};
#define GET_INFO  _IOWR(0xff, 11, struct info)
#define INFO_EXIT (1u << 3)

struct dead_process {
	uint64_t key; /* PidFd.dead */
	pid_t pid;    /* of the helper, until it is reaped */
	int hold;     /* it ends when this is closed */
};

static bool pidfd_match(const struct fd_facts *f)
{
	return !strcmp(f->link, "anon_inode:[pidfd]");
}

static bool has_task(const struct tree *t, pid_t tid)
{
	for (size_t i = 0; i < t->n; i++) {
		if (t->procs[i]->pid == tid)
			return true;
		for (size_t k = 0; k < t->procs[i]->n_threads; k++)
			if (t->procs[i]->threads[k]->task.tid == tid)
				return true;
	}
	return false;
}

/* A running tree grows: a task that was not there when it was looked at has an ancestor that was. */
static bool comes_from(const struct tree *t, pid_t tid)
{
	for (int depth = 0; tid > 0 && depth < 1000; depth++) {
		struct proc_status st;
		struct error ignore = ERROR_INIT;

		if (has_task(t, tid))
			return true;
		if (proc_status_read(tid, 0, &st, &ignore) < 0)
			return true; /* gone meanwhile */
		pid_t next = st.tgid != tid ? st.tgid : st.ppid;

		proc_status_deinit(&st);
		tid = next;
	}
	return false;
}

static int32_t exit_status(int copy)
{
	struct info info = {.mask = INFO_EXIT};

	return ioctl(copy, GET_INFO, &info) == 0 && info.mask & INFO_EXIT ? info.exit_code : 0;
}

static int pidfd_capture(struct capture *c, struct fd_facts *f, FileDescription *m, struct error *e)
{
	const char *info = fd_facts_info(f, e);
	const char *value = info ? proc_field(info, "Pid") : NULL;

	if (!info)
		return -e->code;
	if (!value)
		return error_say(e, EIO, "pid %d fd %d: fdinfo does not show the process of its pidfd",
				 f->pid, f->fd);
	long pid = strtol(value, NULL, 10);

	if (f->flags & ~(O_RDWR | O_NONBLOCK | PIDFD_THREAD | O_LARGEFILE | O_CLOEXEC))
		return error_say(e, ENOTSUP, "pid %d fd %d: a pidfd with flags 0%o is not supported", f->pid,
				 f->fd, f->flags);
	if (pid == 0 || (pid > 0 && !(f->frozen ? has_task(c->tree, pid) : comes_from(c->tree, pid))))
		return error_say(e, ENOTSUP,
				 "pid %d fd %d: its pidfd is of process %ld, which is not in the tree",
				 f->pid, f->fd, pid);
	m->pidfd = xmalloc(sizeof(*m->pidfd));
	ferry__pid_fd__init(m->pidfd);
	if (pid > 0) {
		m->pidfd->pid = pid;
		return 0;
	}
	m->pidfd->dead = f->st.st_ino;
	m->pidfd->exit_status = exit_status(f->copy);
	return 0;
}

/* --- rebuild ------------------------------------------------------------------------------------------ */

static _Noreturn void end_like(int hold, int status)
{
	struct sigaction plain = {.sa_handler = SIG_DFL};
	sigset_t none;
	char c;

	while (read(hold, &c, 1) < 0 && errno == EINTR)
		;
	sigemptyset(&none);
	if (WIFSIGNALED(status)) {
		sigaction(WTERMSIG(status), &plain, NULL);
		sigprocmask(SIG_SETMASK, &none, NULL);
		raise(WTERMSIG(status));
	}
	_exit(WEXITSTATUS(status));
}

static int make_helper(struct dead_process *d, int status, struct error *e)
{
	struct clone_args args = {0}; /* no signal at its end: nobody but us waits for it */
	int p[2];

	if (pipe2(p, O_CLOEXEC) < 0)
		return error_set(e, errno, "making a pipe");
	d->pid = syscall(SYS_clone3, &args, sizeof(args));
	if (d->pid == 0) {
		close(p[1]);
		end_like(p[0], status);
	}
	int err = errno;

	close(p[0]);
	if (d->pid < 0) {
		close(p[1]);
		return error_set(e, err, "making a process");
	}
	d->hold = p[1];
	return 0;
}

static struct dead_process *find_dead(struct files_rebuild *f, uint64_t key)
{
	for (size_t i = 0; i < f->n_dead; i++)
		if (f->dead[i].key == key)
			return &f->dead[i];
	return NULL;
}

static void reap(struct dead_process *d)
{
	if (d->pid <= 0)
		return;
	close(d->hold);
	while (waitpid(d->pid, NULL, __WALL) < 0 && errno == EINTR)
		;
	d->pid = 0;
}

/* The process whose descriptor is to be opened. */
static int process_of(struct rebuild *r, const FileDescription *m, struct error *e)
{
	struct files_rebuild *f = files_rebuild_of(r);

	if (m->pidfd->pid)
		return m->pidfd->pid;
	struct dead_process *d = find_dead(f, m->pidfd->dead);

	if (!d) {
		struct dead_process made = {.key = m->pidfd->dead};

		if (make_helper(&made, m->pidfd->exit_status, e) < 0)
			return error_prefix(e, "pid %d fd %d: its pidfd of a dead process", m->pid, m->fd);
		FILES_GROW(f->dead, f->n_dead, f->cap_dead);
		d = &f->dead[f->n_dead++];
		*d = made;
	}
	return d->pid;
}

static int pidfd_open_again(struct rebuild *r, const FileDescription *m, int *ret_fd, struct error *e)
{
	if (!m->pidfd || m->pidfd->pid < 0 || (!m->pidfd->pid && !m->pidfd->dead))
		return error_say(e, EPROTO, "the image says nothing of pidfd %llu",
				 (unsigned long long)m->id);
	int pid = process_of(r, m, e);

	if (pid < 0)
		return pid;
	*ret_fd = sys_pidfd_open(pid, m->flags & (O_NONBLOCK | PIDFD_THREAD));
	return *ret_fd < 0 ? error_set(e, -*ret_fd, "pid %d fd %d: opening a pidfd of process %d", m->pid,
				       m->fd, m->pidfd->pid)
			   : 0;
}

static int pidfd_connect(struct rebuild *r, const FileDescription *m, struct error *e)
{
	struct dead_process *d = m->pidfd->pid ? NULL : find_dead(files_rebuild_of(r), m->pidfd->dead);

	(void)e;
	if (d)
		reap(d);
	return 0;
}

void pidfds_free(struct files_rebuild *f)
{
	for (size_t i = 0; i < f->n_dead; i++)
		reap(&f->dead[i]);
	free(f->dead);
	f->dead = NULL;
	f->n_dead = f->cap_dead = 0;
}

const struct fd_type fd_pidfd = {
	.name = "pidfd",
	.kind = FILE_KIND(PIDFD),
	.match = pidfd_match,
	.capture = pidfd_capture,
	.open = pidfd_open_again,
	.connect = pidfd_connect,
};
