/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pairs of pseudo-terminals at the destination, and RECORD_TERMINAL: controlling terminals.
 *
 * A process gets its controlling terminal by fork, or, leading a session, by TIOCSCTTY.  So the pair is made
 * with the first skeletons, the leader takes it as soon as it has founded its session, and its children have
 * it when they are cloned (engine/family.c).  The foreground group is set at the end by the leader: its own
 * group is in the foreground until then, so nobody gets a SIGTTOU.
 */
#include "state/files/terminal.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <termios.h>
#include <unistd.h>

#include "base/util.h"
#include "procfs/procfs.h"
#include "state/fetch.h"
#include "state/files/tty.h"

#define MAX_WRONG 256

struct terminal {
	int index; /* at the source */
	int index_here;
	int master, slave; /* slave: -1 until it is needed */
};

/* --- pairs -------------------------------------------------------------------------------------------- */

/* The device by which the master was opened, if the image has told that already. */
static const char *device_of(struct rebuild *r, int index)
{
	const Ferry__Files *all =
		(const Ferry__Files *)snapshot_find(r->snapshot, FERRY__RECORD_TYPE__RECORD_FILES, 0, 0);

	for (size_t i = 0; all && i < all->n_files; i++)
		if (all->files[i]->tty && all->files[i]->tty->master && all->files[i]->tty->index == index &&
		    all->files[i]->tty->path[0] == '/')
			return all->files[i]->tty->path;
	return "/dev/ptmx";
}

/* The kernel gives the lowest free number: those below it are held until it has come to ours. */
static int open_master(struct rebuild *r, int index, int *ret_index, struct error *e)
{
	int wrong[MAX_WRONG], n = 0, fd, number = -1, off = 0;
	const char *device = device_of(r, index);

	for (;;) {
		fd = open(device, O_RDWR | O_NOCTTY | O_CLOEXEC);
		if (fd < 0 || ioctl(fd, TIOCGPTN, &number) < 0 || number >= index || n == MAX_WRONG)
			break;
		wrong[n++] = fd;
	}
	int err = errno;

	/* Taken: then any. */
	if (fd >= 0 && number > index && n) {
		close(fd);
		fd = wrong[0];
		wrong[0] = wrong[--n];
	}
	while (n > 0)
		close(wrong[--n]);
	if (fd < 0)
		return error_set(e, err, "making a pseudo-terminal (%s)", device);
	if (ioctl(fd, TIOCGPTN, ret_index) < 0 || ioctl(fd, TIOCSPTLCK, &off) < 0) {
		err = errno;
		close(fd);
		return error_set(e, err, "making a pseudo-terminal");
	}
	return fd;
}

static int terminal_get(struct rebuild *r, int index, struct terminal **ret, struct error *e)
{
	struct files_rebuild *f = files_rebuild_of(r);

	for (size_t i = 0; i < f->n_terminals; i++)
		if (f->terminals[i].index == index) {
			*ret = &f->terminals[i];
			return 0;
		}
	struct terminal t = {.index = index, .slave = -1};

	t.master = open_master(r, index, &t.index_here, e);
	if (t.master < 0)
		return t.master;
	if (t.index_here != index)
		events_log(r->events, 2, "/dev/pts/%d is taken here: the terminal becomes /dev/pts/%d", index,
			   t.index_here);
	FILES_GROW(f->terminals, f->n_terminals, f->cap_terminals);
	f->terminals[f->n_terminals] = t;
	*ret = &f->terminals[f->n_terminals++];
	return 0;
}

int terminal_master(struct rebuild *r, int index, int *ret_fd, struct error *e)
{
	struct terminal *t;
	int ret = terminal_get(r, index, &t, e);

	if (ret >= 0)
		*ret_fd = t->master;
	return ret;
}

int terminal_slave(struct rebuild *r, int index, int *ret_fd, struct error *e)
{
	struct terminal *t;
	int ret = terminal_get(r, index, &t, e);

	if (ret < 0)
		return ret;
	if (t->slave < 0)
		t->slave = ioctl(t->master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
	*ret_fd = t->slave;
	return t->slave < 0 ? error_set(e, errno, "opening the slave of /dev/pts/%d", t->index_here) : 0;
}

void terminals_free(struct files_rebuild *f)
{
	for (size_t i = 0; i < f->n_terminals; i++) {
		if (f->terminals[i].slave >= 0)
			close(f->terminals[i].slave);
		close(f->terminals[i].master);
	}
	free(f->terminals);
	f->terminals = NULL;
	f->n_terminals = f->cap_terminals = 0;
}

/* --- controlling terminals ---------------------------------------------------------------------------- */

/* Device number as /proc/PID/stat has it. */
static dev_t decode(int tty_nr)
{
	unsigned n = (unsigned)tty_nr;

	return makedev((n >> 8) & 0xfff, (n & 0xff) | ((n >> 12) & 0xfff00));
}

int terminal_of(pid_t pid)
{
	struct proc_stat st;
	struct error ignore = ERROR_INIT;

	return proc_stat_read(pid, 0, &st, &ignore) < 0 || !st.tty_nr ? 0 : tty_index(decode(st.tty_nr)) + 1;
}

static int read_terminal(struct capture *c, struct process *p, Ferry__Terminal **ret, struct error *e)
{
	struct proc_stat st;
	struct error gone = ERROR_INIT;

	*ret = NULL;
	if (proc_stat_read(p->pid, 0, &st, &gone) < 0 || !st.tty_nr)
		return 0;
	int index = tty_index(decode(st.tty_nr));

	if (index < 0)
		return error_say(e, ENOTSUP,
				 "pid %d: its controlling terminal (device %u:%u) is no pseudo-terminal and "
				 "cannot be moved",
				 p->pid, major(decode(st.tty_nr)), minor(decode(st.tty_nr)));
	bool outside = !tty_has_master(c, index) && c->options && c->options->shell_job &&
		       !tree_find(c->tree, p->sid);

	if (!outside && !tty_has_master(c, index))
		return error_say(
			e, ENOTSUP,
			"pid %d: the other side of its controlling terminal /dev/pts/%d is outside the "
			"tree, so it cannot be moved: move the program that has it along, or start "
			"this one with setsid(1)",
			p->pid, index);
	*ret = xmalloc(sizeof(**ret));
	ferry__terminal__init(*ret);
	(*ret)->index = index;
	(*ret)->outside = outside;
	if (p->pid == (outside ? p->pgid : p->sid) && st.tpgid > 0 && (!outside || st.tpgid == p->pgid))
		(*ret)->foreground = st.tpgid;
	return 0;
}

static int terminal_preflight(struct capture *c, struct process *p, struct error *e)
{
	Ferry__Terminal *m = NULL;
	int r = c->tree->frozen ? 0 : read_terminal(c, p, &m, e);

	if (m)
		ferry__terminal__free_unpacked(m, NULL);
	return r;
}

static int terminal_take_warm(struct capture *c, struct process *p, struct thread *t, struct error *e)
{
	Ferry__Terminal *m = NULL;
	int r = read_terminal(c, p, &m, e);

	(void)t;
	if (m)
		snapshot_put(c->snapshot, FERRY__RECORD_TYPE__RECORD_TERMINAL, p->pid, 0, &m->base);
	return r;
}

static int terminal_take(struct capture *c, struct process *p, struct thread *t, struct batch *b, void *state,
			 struct error *e)
{
	(void)b;
	(void)state;
	return terminal_take_warm(c, p, t, e);
}

static bool has_group(const struct tree *t, pid_t pgid)
{
	for (size_t i = 0; i < t->n; i++)
		if (t->procs[i]->pgid == pgid)
			return true;
	return false;
}

int terminal_of_caller(struct rebuild *r, int access, struct error *e)
{
	char name[64] = "";
	bool named = ttyname_r(STDIN_FILENO, name, sizeof(name)) == 0 && tcgetsid(STDIN_FILENO) == getsid(0);

	if (!r->options || !r->options->shell_job)
		return error_say(e, EINVAL, "it needs the terminal of its caller: use --shell-job");
	int fd = open(named ? name : "/dev/tty", access | O_NOCTTY | O_CLOEXEC);

	return fd < 0 ? error_set(e, errno,
				  "it needs the terminal of its caller (--shell-job), and there is none here")
		      : fd;
}

/* The group comes to the foreground, in the place of ours if that is there. */
static int bring_to_foreground(struct rebuild *r, const Ferry__Terminal *m, struct error *e)
{
	cleanup_close int fd = terminal_of_caller(r, O_RDWR, e);

	if (fd < 0)
		return fd;
	if (tcgetpgrp(fd) != getpgrp() || !m->foreground)
		return 0;
	return tcsetpgrp(fd, m->foreground) < 0
		       ? error_set(e, errno, "bringing process group %d to the foreground", m->foreground)
		       : 0;
}

static int terminal_build(struct rebuild *r, struct process *p, struct thread *t,
			  const ProtobufCMessage *message, struct batch *b, struct error *e)
{
	const Ferry__Terminal *m = (const Ferry__Terminal *)message;
	struct terminal *term;

	if (m->outside)
		return bring_to_foreground(r, m, e);
	int slave, ret = terminal_get(r, m->index, &term, e);

	(void)t;
	if (ret < 0)
		return ret;
	if (terminal_of(p->pid) != term->index_here + 1)
		return error_say(
			e, EAGAIN,
			"pid %d: it got its controlling terminal /dev/pts/%d after its copy was begun: "
			"try again",
			p->pid, m->index);
	if (!m->foreground || !has_group(r->tree, m->foreground))
		return 0;
	ret = terminal_slave(r, m->index, &slave, e);
	if (ret < 0)
		return ret;
	int32_t group = m->foreground;
	unsigned fd = rebuild_fetch_fd(b, slave);

	batch_call(b, "set the foreground process group", SYS_ioctl, ARG_RESULT(fd), ARG(TIOCSPGRP),
		   ARG_PUT(b, &group, sizeof(group)));
	batch_call(b, "close the terminal", SYS_close, ARG_RESULT(fd));
	rebuild_fetch_end(b);
	return 0;
}

const struct state_kind kind_terminal = {
	.name = "files/terminal",
	.type = FERRY__RECORD_TYPE__RECORD_TERMINAL,
	.scope = KIND_PROCESS,
	.descriptor = &ferry__terminal__descriptor,
	.preflight = terminal_preflight,
	.take_warm = terminal_take_warm,
	.take = terminal_take,
	.build = terminal_build,
};
