/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pseudo-terminals whose master is in the tree.  The pair is made again by opening a master, with the old
 * number if that is free; slaves are opened from it (TIOCGPTPEER), without a name.  State goes with the
 * master.
 *
 * The queues are taken when the tree is frozen, and put back if it goes on here (tty_undo).
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/tty.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/sysmacros.h>

#include "base/util.h"
#include "procfs/procfs.h"
#include "state/files/terminal.h"
#include "state/files/tty.h"

#ifndef TIOCGDEV
#define TIOCGDEV _IOR('T', 0x32, unsigned)
#endif

#define LARGEFILE    0100000
#define TTYAUX_MAJOR 5
#define SLAVE_MAJOR  136
#define SLAVE_MAJORS 8

struct drained { /* what was taken from a frozen target */
	pid_t pid;
	int fd; /* a master */
	Ferry__TtyState *state;
};

int tty_index(dev_t rdev)
{
	unsigned n = major(rdev);

	return n >= SLAVE_MAJOR && n < SLAVE_MAJOR + SLAVE_MAJORS
		       ? (int)((n - SLAVE_MAJOR) * 256 + minor(rdev))
		       : -1;
}

static bool is_master(const struct stat *st)
{
	return major(st->st_rdev) == TTYAUX_MAJOR && minor(st->st_rdev) == 2;
}

static bool is_own_tty(const struct stat *st)
{
	return major(st->st_rdev) == TTYAUX_MAJOR && minor(st->st_rdev) == 0;
}

static bool tty_match(const struct fd_facts *f)
{
	return S_ISCHR(f->st.st_mode) && !(f->flags & O_PATH) &&
	       (is_master(&f->st) || is_own_tty(&f->st) || tty_index(f->st.st_rdev) >= 0);
}

static int index_of(const struct fd_facts *f, struct error *e)
{
	unsigned dev = 0;
	int n = -1;

	if (is_master(&f->st))
		return ioctl(f->copy, TIOCGPTN, &n) < 0
			       ? error_set(e, errno, "pid %d fd %d: asking for the number of its terminal",
					   f->pid, f->fd)
			       : n;
	if (!is_own_tty(&f->st))
		return tty_index(f->st.st_rdev);
	/* /dev/tty: the kernel's number of the device behind it, in the old encoding. */
	if (ioctl(f->copy, TIOCGDEV, &dev) < 0)
		return error_set(e, errno, "pid %d fd %d: asking which terminal its /dev/tty is", f->pid,
				 f->fd);
	n = tty_index(makedev((dev >> 8) & 0xfff, (dev & 0xff) | ((dev >> 12) & 0xfff00)));
	return n < 0 ? error_say(e, ENOTSUP,
				 "pid %d fd %d: its terminal (device 0x%x) is no pseudo-terminal and cannot "
				 "be moved",
				 f->pid, f->fd, dev)
		     : n;
}

static int check_slave(const struct fd_facts *f, struct error *e)
{
	int discipline = 0;
	struct stat pts;

	if (ioctl(f->copy, TIOCGETD, &discipline) == 0 && discipline != N_TTY)
		return error_say(e, ENOTSUP,
				 "pid %d fd %d: terminal %s has line discipline %d, which is not supported",
				 f->pid, f->fd, f->link, discipline);
	if (!is_own_tty(&f->st) && (stat("/dev/pts", &pts) < 0 || pts.st_dev != f->st.st_dev))
		return error_say(e, ENOTSUP,
				 "pid %d fd %d: terminal %s is of another instance of devpts than /dev/pts",
				 f->pid, f->fd, f->link);
	return 0;
}

static int tty_capture(struct capture *c, struct fd_facts *f, FileDescription *m, struct error *e)
{
	int index = index_of(f, e);

	(void)c;
	if (index >= 0 && !is_master(&f->st) && check_slave(f, e) < 0)
		return -e->code;
	if (index < 0)
		return index;
	m->tty = xmalloc(sizeof(*m->tty));
	ferry__tty_file__init(m->tty);
	m->tty->index = index;
	m->tty->master = is_master(&f->st);
	if (m->tty->master)
		m->tty->path = xstrdup(f->link);
	return 0;
}

bool tty_has_master(struct capture *c, int index)
{
	return index_map_find(&files_capture_of(c)->ttys, (uint64_t)index, 0) != 0;
}

static const FileDescription *find_slave(const Ferry__Files *all, int index)
{
	for (size_t i = 0; i < all->n_files; i++)
		if (all->files[i]->tty && !all->files[i]->tty->master && all->files[i]->tty->index == index)
			return all->files[i];
	return NULL;
}

static bool is_in_tree(const struct tree *t, pid_t sid)
{
	for (size_t i = 0; i < t->n; i++)
		if (t->procs[i]->sid == sid)
			return true;
	return false;
}

static int check_session(struct capture *c, int master, const FileDescription *m, struct error *e)
{
	pid_t sid = 0;

	if (ioctl(master, TIOCGSID, &sid) == 0 && sid > 0 && !is_in_tree(c->tree, sid))
		return error_say(
			e, ENOTSUP,
			"pid %d fd %d: terminal /dev/pts/%d is that of session %d, which is not in the "
			"tree",
			m->pid, m->fd, m->tty->index, sid);
	return 0;
}

static void keep_drained(struct files_capture *f, const struct ofd *o, const Ferry__TtyState *s)
{
	if (!s->input.len && !s->output.len)
		return;
	size_t size = ferry__tty_state__get_packed_size(s);
	cleanup_free uint8_t *buffer = xmalloc(size);

	ferry__tty_state__pack(s, buffer);
	FILES_GROW(f->drained, f->n_drained, f->cap_drained);
	f->drained[f->n_drained++] =
		(struct drained){o->pid, o->fd, ferry__tty_state__unpack(NULL, size, buffer)};
}

static int take_state(struct capture *c, const Ferry__Files *all, FileDescription *m, struct error *e)
{
	struct files_capture *f = files_capture_of(c);
	const struct ofd *o = &f->ofds[m->id - 1];
	const FileDescription *s = find_slave(all, m->tty->index);
	cleanup_close int master = files_copy_of(c, o, e), slave = -1;

	if (master < 0)
		return master;
	int r = check_session(c, master, m, e);

	if (r >= 0 && s)
		r = slave = files_copy_of(c, &f->ofds[s->id - 1], e);
	if (r < 0)
		return r;
	m->tty->state = xmalloc(sizeof(*m->tty->state));
	ferry__tty_state__init(m->tty->state);
	r = tty_get_settings(master, slave, m->tty->state, e);
	if (r >= 0 && f->frozen) {
		r = tty_drain(master, s != NULL, m->tty->state, e);
		keep_drained(f, o, m->tty->state);
	}
	return r < 0 ? error_prefix(e, "pid %d fd %d", m->pid, m->fd) : 0;
}

/* With --shell-job: the terminal of a session that is led from outside the tree. */
static bool is_of_caller(const struct capture *c, int index)
{
	for (size_t i = 0; c->options && c->options->shell_job && i < c->tree->n; i++)
		if (!tree_find(c->tree, c->tree->procs[i]->sid) &&
		    terminal_of(c->tree->procs[i]->pid) == index + 1)
			return true;
	return false;
}

static int take_outside(struct capture *c, FileDescription *m, struct error *e)
{
	cleanup_close int slave = files_copy_of(c, &files_capture_of(c)->ofds[m->id - 1], e);

	if (slave < 0)
		return slave;
	m->tty->state = xmalloc(sizeof(*m->tty->state));
	ferry__tty_state__init(m->tty->state);
	int r = tty_get_termios(slave, m->tty->state, e);

	return r < 0 ? error_prefix(e, "pid %d fd %d", m->pid, m->fd) : 0;
}

static int tty_settle(struct capture *c, Ferry__Files *all, struct error *e)
{
	struct files_capture *f = files_capture_of(c);

	for (size_t i = 0; i < all->n_files; i++) {
		const Ferry__TtyFile *t = all->files[i]->tty;

		if (t && t->master)
			*index_map_at(&f->ttys, (uint64_t)t->index, 0) = (uint32_t)i + 1;
	}
	for (size_t i = 0; i < all->n_files; i++) {
		FileDescription *m = all->files[i];

		if (!m->tty || m->tty->master || tty_has_master(c, m->tty->index))
			continue;
		if (is_of_caller(c, m->tty->index)) {
			m->tty->outside = true;
			continue;
		}
		return error_say(
			e, ENOTSUP,
			"pid %d fd %d: the other side of its terminal /dev/pts/%d is outside the tree, so "
			"it cannot be moved: move the program that has it (terminal emulator, tmux, sshd) "
			"along, use --shell-job, or start this one with its input and output redirected "
			"(setsid, < /dev/null)",
			m->pid, m->fd, m->tty->index);
	}
	int r = 0;

	for (size_t i = 0; i < all->n_files && r >= 0; i++)
		if (all->files[i]->tty && all->files[i]->tty->master)
			r = take_state(c, all, all->files[i], e);
		else if (all->files[i]->tty && all->files[i]->tty->outside)
			r = take_outside(c, all->files[i], e);
	return r;
}

int tty_undo(struct capture *c, struct error *e)
{
	struct files_capture *f = files_capture_of(c);
	int first = 0;

	for (size_t i = 0; i < f->n_drained; i++) {
		struct drained *d = &f->drained[i];
		cleanup_close int pidfd = sys_pidfd_open(d->pid, 0);
		cleanup_close int master = pidfd < 0 ? pidfd : sys_pidfd_getfd(pidfd, d->fd);
		int off = 0, r = master < 0 ? error_set(e, -master, "getting at its master") : 0;

		if (r >= 0 && d->state->locked)
			(void)ioctl(master, TIOCSPTLCK, &off);
		if (r >= 0)
			r = tty_push(master, d->state, e);
		off = 1;
		if (d->state->locked && master >= 0)
			(void)ioctl(master, TIOCSPTLCK, &off);
		if (r < 0 && !first)
			first = error_prefix(e, "pid %d fd %d: putting back what was queued in its terminal",
					     d->pid, d->fd);
	}
	tty_forget_drained(f);
	return first;
}

void tty_forget_drained(struct files_capture *f)
{
	for (size_t i = 0; i < f->n_drained; i++)
		ferry__tty_state__free_unpacked(f->drained[i].state, NULL);
	free(f->drained);
	f->drained = NULL;
	f->n_drained = f->cap_drained = 0;
}

/* --- rebuild ------------------------------------------------------------------------------------------ */

static int need_part(const FileDescription *m, struct error *e)
{
	if (!m->tty || m->tty->index < 0 || ((m->tty->master || m->tty->outside) && !m->tty->state))
		return error_say(e, EPROTO, "the image says nothing of terminal %llu",
				 (unsigned long long)m->id);
	return 0;
}

static int tty_check(struct rebuild *r, const FileDescription *m, struct error *e)
{
	int ret = m->tty ? 0 : need_part(m, e);

	if (ret < 0 || !m->tty->outside)
		return ret;
	int fd = terminal_of_caller(r, O_RDWR, e);

	if (fd < 0)
		return error_prefix(e, "pid %d fd %d", m->pid, m->fd);
	close(fd);
	return 0;
}

static int tty_open(struct rebuild *r, const FileDescription *m, int *ret_fd, struct error *e)
{
	int master, ret = need_part(m, e);

	if (ret >= 0 && m->tty->outside) {
		*ret_fd = terminal_of_caller(r, m->flags & O_ACCMODE, e);
		return *ret_fd < 0 ? error_prefix(e, "pid %d fd %d", m->pid, m->fd) : 0;
	}
	if (ret >= 0)
		ret = terminal_master(r, m->tty->index, &master, e);
	if (ret < 0)
		return error_is(e) ? error_prefix(e, "pid %d fd %d", m->pid, m->fd) : ret;
	/* What is given here stays in the flags of the description, close-on-exec too. */
	*ret_fd = m->tty->master
			  ? fcntl(master, F_DUPFD_CLOEXEC, 0)
			  : ioctl(master, TIOCGPTPEER,
				  (m->flags & (O_ACCMODE | LARGEFILE | O_CLOEXEC)) | O_NOCTTY | O_NONBLOCK);
	if (*ret_fd >= 0)
		fcntl(*ret_fd, F_SETFD, FD_CLOEXEC);
	return *ret_fd < 0 ? error_set(e, errno, "pid %d fd %d: opening terminal /dev/pts/%d", m->pid, m->fd,
				       m->tty->index)
			   : 0;
}

static int tty_connect(struct rebuild *r, const FileDescription *m, struct error *e)
{
	int master, ret;

	if (m->tty->outside)
		return tty_set_termios(files_host_fd(r, m->id), m->tty->state, e);
	if (!m->tty->master)
		return 0;
	ret = terminal_master(r, m->tty->index, &master, e);
	if (ret >= 0)
		ret = tty_set_settings(master, m->tty->state, e);
	if (ret >= 0)
		ret = tty_push(master, m->tty->state, e);
	if (ret >= 0)
		ret = tty_set_modes(master, m->tty->state, e);
	return ret < 0 ? error_prefix(e, "pid %d fd %d: terminal /dev/pts/%d", m->pid, m->fd, m->tty->index)
		       : 0;
}

const struct fd_type fd_tty = {
	.name = "terminal",
	.kind = FILE_KIND(TTY),
	.match = tty_match,
	.capture = tty_capture,
	.settle = tty_settle,
	.check = tty_check,
	.open = tty_open,
	.connect = tty_connect,
};
