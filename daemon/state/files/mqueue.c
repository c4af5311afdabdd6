/* SPDX-License-Identifier: Apache-2.0 */
/*
 * POSIX message queues.  Messages cannot be looked at without being taken.  A queue gives them in the order
 * of priority and age, so all that were taken, put back in that order, are the queue as it was: done at once,
 * of the frozen tree, when nobody outside has the queue open.
 *
 * A queue tells the one process that has asked for it (mq_notify) when a message comes while it is empty. For
 * which value it asked is told nowhere but with that signal, so the signal is brought about: a message is
 * sent and taken, the process takes the signal and asks again.  A queue that is not empty would tell because
 * of us, so that is refused; it told when the first message came, unless it was asked only later.
 *
 * A queue with a name outlives the processes.  One that is still there when they come back is used as it is
 * then.
 */
#include <errno.h>
#include <fcntl.h>
#include <mqueue.h>
#include <signal.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>

#include "base/util.h"
#include "parasite/region.h"
#include "procfs/procfs.h"
#include "state/files/files.h"
#include "state/memory/memory.h"
#include "state/task/message.h"

#define MQUEUE_MAGIC 0x19800202
#define FILE_SIZE    80 /* of what read(2) gives: the size that fstat(2) shows */
#define THREAD       SIGEV_THREAD

/* --- source ------------------------------------------------------------------------------------------------
 */

static bool looks_like_one(const struct stat *st)
{
	return S_ISREG(st->st_mode) && !major(st->st_dev) && st->st_size == FILE_SIZE;
}

static bool mqueue_match(const struct fd_facts *f)
{
	char path[64];
	struct statfs fs;

	if (!looks_like_one(&f->st) || f->extra || f->flags & O_PATH)
		return false;
	snprintf(path, sizeof(path), "/proc/%d/fd/%d", f->living, f->fd);
	return statfs(path, &fs) == 0 && fs.f_type == MQUEUE_MAGIC;
}

static bool may_be_one(const char *link)
{
	return link[0] == '/';
}

static void note_outside(void *ctx, pid_t pid, int fd)
{
	char path[64];
	struct stat st;

	snprintf(path, sizeof(path), "/proc/%d/fd/%d", pid, fd);
	if (stat(path, &st) == 0 && looks_like_one(&st))
		*index_map_at(ctx, st.st_dev, st.st_ino) = (uint32_t)pid;
}

static int mqueue_preflight(struct capture *c, struct fd_facts *f, struct error *e)
{
	struct files_capture *fc = files_capture_of(c);
	struct proc_stat st = {.comm = "?"};
	struct error ignore = ERROR_INIT;

	if (!fc->mqueues_known)
		files_each_outside(c, may_be_one, note_outside, &fc->mqueues_outside);
	fc->mqueues_known = true;
	pid_t holder = (pid_t)index_map_find(&fc->mqueues_outside, f->st.st_dev, f->st.st_ino);

	if (!holder)
		return 0;
	proc_stat_read(holder, 0, &st, &ignore);
	return error_say(
		e, ENOTSUP,
		"pid %d fd %d: POSIX message queue %s is also open in pid %d (%s), which is not in the tree",
		f->pid, f->fd, f->link, holder, st.comm);
}

/* Our own description of it, to read from and write to. */
static int open_again(const struct fd_facts *f, struct error *e)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", f->copy);
	int fd = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);

	return fd < 0 ? error_set(e, errno, "pid %d fd %d: opening its message queue %s", f->pid, f->fd,
				  f->link)
		      : fd;
}

static int take_all(int queue, Ferry__Mqueue *m, struct error *e)
{
	cleanup_free char *buffer = xmalloc(m->message_size + 1);
	unsigned priority;
	ssize_t n;

	m->messages = xcalloc(m->max_messages + 1, sizeof(*m->messages));
	while (m->n_messages < m->max_messages &&
	       (n = mq_receive(queue, buffer, m->message_size, &priority)) >= 0) {
		Ferry__MqueueMessage *x = MESSAGE_NEW(Ferry__MqueueMessage, ferry__mqueue_message);

		x->priority = priority;
		x->text = message_bytes(buffer, (size_t)n);
		m->messages[m->n_messages++] = x;
	}
	return m->n_messages == m->max_messages || errno == EAGAIN
		       ? 0
		       : error_set(e, errno, "receive from message queue %s", m->name);
}

static int send_all(int queue, const Ferry__Mqueue *m, struct error *e)
{
	for (size_t i = 0; i < m->n_messages; i++) {
		const Ferry__MqueueMessage *x = m->messages[i];

		if (mq_send(queue, x->text.len ? (const char *)x->text.data : "", x->text.len, x->priority) <
		    0)
			return error_set(e, errno, "send message %zu of %zu bytes to message queue %s", i,
					 x->text.len, m->name);
	}
	return 0;
}

static int copy_messages(const struct fd_facts *f, int queue, Ferry__Mqueue *m, struct error *e)
{
	struct mq_attr attr;
	struct error late = ERROR_INIT;

	if (mq_getattr(queue, &attr) < 0 || !attr.mq_curmsgs)
		return 0;
	if (m->notify_pid)
		return error_say(e, EAGAIN,
				 "pid %d fd %d: %ld messages wait in message queue %s, of which pid %d has "
				 "asked to be "
				 "notified: try again when they are read",
				 f->pid, f->fd, attr.mq_curmsgs, f->link, m->notify_pid);
	int r = take_all(queue, m, e), x = send_all(queue, m, r < 0 ? &late : e);

	return r < 0 ? r : x;
}

/* "QSIZE:0          NOTIFY:0     SIGNO:10    NOTIFY_PID:1234  " */
static int read_notify(const struct fd_facts *f, int queue, Ferry__Mqueue *m, int *ret_how, struct error *e)
{
	char text[FILE_SIZE + 1] = {0};
	int signo = 0, pid = 0;

	if (pread(queue, text, FILE_SIZE, 0) < 0)
		return error_set(e, errno, "pid %d fd %d: reading the state of message queue %s", f->pid,
				 f->fd, f->link);
	if (sscanf(text, "QSIZE:%*u NOTIFY:%d SIGNO:%d NOTIFY_PID:%d", ret_how, &signo, &pid) != 3)
		return error_say(e, EIO,
				 "pid %d fd %d: the state of message queue %s is in an unknown form: %s",
				 f->pid, f->fd, f->link, text);
	m->notify_pid = pid;
	m->notify_signal = *ret_how == SIGEV_SIGNAL ? signo : 0;
	if (pid && *ret_how == THREAD)
		return error_say(
			e, ENOTSUP,
			"pid %d fd %d: pid %d has asked to be notified of messages in queue %s by a thread "
			"(SIGEV_THREAD), which is not supported",
			f->pid, f->fd, pid, f->link);
	return 0;
}

/* --- the value of a notification
 * ---------------------------------------------------------------------------- */

static bool is_pending(pid_t pid, int signo)
{
	struct proc_status s;
	struct error gone = ERROR_INIT;
	bool r = true;

	if (proc_status_read(pid, 0, &s, &gone) >= 0) {
		r = (s.shd_pnd | s.sig_pnd) >> (signo - 1) & 1;
		proc_status_deinit(&s);
	}
	return r;
}

static int number_in(struct capture *c, const struct fd_facts *f, struct process *p)
{
	struct fd_table *t;
	struct error ignore = ERROR_INIT;

	if (files_table_of(c, p, &t, &ignore) < 0)
		return -1;
	for (size_t i = 0; i < t->n; i++) {
		const struct ofd *o = &files_capture_of(c)->ofds[t->fds[i].ofd];

		if (o->st.st_dev == f->st.st_dev && o->st.st_ino == f->st.st_ino)
			return t->fds[i].fd;
	}
	return -1;
}

/* In the process that asked: take the signal, of which the value is told, and ask again. */
static int ask_again(struct runner *w, int fd, Ferry__Mqueue *m, struct error *e)
{
	struct batch b = BATCH_INIT;
	uint64_t set = 1ull << (m->notify_signal - 1);
	struct timespec now = {0};
	struct sigevent ev = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = m->notify_signal};
	size_t info = batch_reserve(&b, sizeof(siginfo_t)), at = batch_put(&b, &ev, sizeof(ev));
	unsigned i = batch_call(&b, "take the signal of a message queue", SYS_rt_sigtimedwait,
				ARG_PUT(&b, &set, sizeof(set)), ARG_DATA(info),
				ARG_PUT(&b, &now, sizeof(now)), ARG(8));

	batch_accept_equal(&b, i, m->notify_signal);
	batch_op(&b, "keep the value of a signal", PB_OP_COPY,
		 ARG_DATA(at + offsetof(struct sigevent, sigev_value)),
		 ARG_DATA(info + offsetof(siginfo_t, si_value)), ARG(8));
	batch_call(&b, "ask a message queue for a signal", SYS_mq_notify, ARG(fd), ARG_DATA(at));
	int r = runner_run(w, &b, e);

	if (r >= 0)
		memcpy(&m->notify_value, (char *)batch_data(&b, info) + offsetof(siginfo_t, si_value), 8);
	batch_deinit(&b);
	return r;
}

static int find_value(struct capture *c, const struct fd_facts *f, int queue, Ferry__Mqueue *m,
		      struct error *e)
{
	struct process *p = tree_find(c->tree, m->notify_pid);
	int fd = p ? number_in(c, f, p) : -1;
	struct runner *w = NULL;
	char byte[1];

	if (fd < 0)
		return error_say(e, ENOTSUP,
				 "pid %d fd %d: message queue %s notifies pid %d, which is not in the tree "
				 "or does not "
				 "have it open",
				 f->pid, f->fd, f->link, m->notify_pid);
	if (is_pending(p->pid, m->notify_signal))
		return error_say(
			e, EAGAIN,
			"pid %d: signal %d, by which message queue %s notifies it, is pending: try again",
			p->pid, m->notify_signal, f->link);
	cleanup_free char *buffer = xmalloc(m->message_size);
	int r = runner_start(&w, ((struct memory_process *)p->data)->region, &p->threads[0]->task, e);

	if (r >= 0 && mq_send(queue, byte, 0, 0) < 0)
		r = error_set(e, errno, "send to message queue %s", f->link);
	if (r >= 0 && mq_receive(queue, buffer, m->message_size, NULL) < 0)
		r = error_set(e, errno, "receive from message queue %s", f->link);
	if (r >= 0)
		r = ask_again(w, fd, m, e);
	if (w) {
		struct error late = ERROR_INIT;
		int x = runner_stop(w, r < 0 ? &late : e);

		r = r < 0 ? r : x;
	}
	return r < 0 ? error_prefix(e, "pid %d", p->pid) : 0;
}

static int capture_first(struct capture *c, struct fd_facts *f, Ferry__Mqueue *m, struct error *e)
{
	struct mq_attr attr;
	cleanup_close int queue = open_again(f, e);
	int how = SIGEV_NONE;

	if (queue < 0)
		return queue;
	if (mq_getattr(queue, &attr) < 0)
		return error_set(e, errno, "pid %d fd %d: looking at message queue %s", f->pid, f->fd,
				 f->link);
	m->max_messages = (uint64_t)attr.mq_maxmsg;
	m->message_size = (uint64_t)attr.mq_msgsize;
	int r = read_notify(f, queue, m, &how, e);

	if (r < 0 || !f->frozen)
		return r;
	r = copy_messages(f, queue, m, e);
	return r >= 0 && m->notify_pid && how == SIGEV_SIGNAL && m->notify_signal
		       ? find_value(c, f, queue, m, e)
		       : r;
}

static int mqueue_capture(struct capture *c, struct fd_facts *f, FileDescription *msg, struct error *e)
{
	uint32_t *first = index_map_at(&files_capture_of(c)->mqueues, f->st.st_dev, f->st.st_ino);
	cleanup_free char *path = files_strip_deleted(f->link);
	Ferry__Mqueue *m = msg->mqueue = MESSAGE_NEW(Ferry__Mqueue, ferry__mqueue);

	if (!*first)
		*first = (uint32_t)f->id;
	m->first = *first;
	m->deleted = !f->st.st_nlink;
	m->name = xstrdup(m->deleted || !strrchr(path, '/') ? path : strrchr(path, '/'));
	m->mode = f->st.st_mode & 07777;
	m->uid = f->st.st_uid;
	m->gid = f->st.st_gid;
	m->ino = f->st.st_ino;
	return m->first == f->id ? capture_first(c, f, m, e) : 0;
}

/* --- destination -------------------------------------------------------------------------------------------
 */

static bool is_same(int fd, const Ferry__Mqueue *q)
{
	struct mq_attr attr;
	struct stat st;

	return fstat(fd, &st) == 0 && mq_getattr(fd, &attr) == 0 && st.st_ino == q->ino &&
	       st.st_uid == q->uid && (st.st_mode & 07777) == q->mode &&
	       (uint64_t)attr.mq_maxmsg == q->max_messages && (uint64_t)attr.mq_msgsize == q->message_size;
}

/* 1: the very queue is here, with a descriptor. 0: the name is free. */
static int find(const FileDescription *m, int *ret_fd, struct error *e)
{
	const Ferry__Mqueue *q = m->mqueue;
	cleanup_close int fd = mq_open(q->name, O_RDWR | O_NONBLOCK | O_CLOEXEC);

	if (fd < 0)
		return errno == ENOENT ? 0
				       : error_set(e, errno, "pid %d fd %d: looking for message queue %s",
						   m->pid, m->fd, q->name);
	if (!is_same(fd, q))
		return error_say(e, EEXIST, "pid %d fd %d: there is another POSIX message queue %s here",
				 m->pid, m->fd, q->name);
	*ret_fd = TAKE_FD(fd);
	return 1;
}

static int need_part(const FileDescription *m, struct error *e)
{
	return m->mqueue && m->mqueue->name && m->mqueue->name[0] == '/'
		       ? 0
		       : error_say(e, EPROTO, "the image says nothing of message queue %llu",
				   (unsigned long long)m->id);
}

static int mqueue_check(struct rebuild *r, const FileDescription *m, struct error *e)
{
	cleanup_close int fd = -1;
	int x = need_part(m, e);

	(void)r;
	if (x < 0 || m->mqueue->first != m->id || m->mqueue->deleted)
		return x;
	x = find(m, &fd, e);
	return x < 0 ? x : 0;
}

struct mqueue_here {
	uint64_t first;
	char *name;     /* by which it is opened */
	bool temporary; /* it goes when all have opened it */
	bool made;      /* it goes if the rebuild fails */
};

void mqueues_free(struct files_rebuild *f, bool started)
{
	for (size_t i = 0; i < f->n_mqueues; i++) {
		if (f->mqueues[i].temporary || (f->mqueues[i].made && !started))
			mq_unlink(f->mqueues[i].name);
		free(f->mqueues[i].name);
	}
	free(f->mqueues);
}

static struct mqueue_here *note(struct rebuild *r, struct mqueue_here here)
{
	struct files_rebuild *f = files_rebuild_of(r);

	FILES_GROW(f->mqueues, f->n_mqueues, f->cap_mqueues);
	f->mqueues[f->n_mqueues] = here;
	return &f->mqueues[f->n_mqueues++];
}

static struct mqueue_here *here_of(struct rebuild *r, const FileDescription *m)
{
	struct files_rebuild *f = files_rebuild_of(r);

	for (size_t i = 0; i < f->n_mqueues; i++)
		if (f->mqueues[i].first == m->mqueue->first)
			return &f->mqueues[i];
	return NULL;
}

/* Has another queue of the image the name that @q has lost? */
static bool is_wanted(struct rebuild *r, const Ferry__Mqueue *q)
{
	const Ferry__Files *all = files_rebuild_of(r)->message;

	for (size_t i = 0; q->deleted && i < all->n_files; i++)
		if (all->files[i]->mqueue && !all->files[i]->mqueue->deleted &&
		    !strcmp(all->files[i]->mqueue->name, q->name))
			return true;
	return false;
}

static int make(struct rebuild *r, const FileDescription *m, int *ret_fd, struct error *e)
{
	const Ferry__Mqueue *q = m->mqueue;
	struct mq_attr attr = {.mq_maxmsg = (long)q->max_messages, .mq_msgsize = (long)q->message_size};
	cleanup_free char *name = xstrdup(q->name);
	int flags = O_RDWR | O_CREAT | O_EXCL | O_NONBLOCK | O_CLOEXEC;
	bool wanted = is_wanted(r, q);
	cleanup_close int fd = wanted ? -1 : mq_open(name, flags, 0600, &attr);

	/* Of one that was deleted another may have the name, or will have it. */
	if (fd < 0 && q->deleted && (wanted || errno == EEXIST)) {
		free(name);
		name = xasprintf("%.200s.ferry-%llu", q->name, (unsigned long long)m->id);
		fd = mq_open(name, flags, 0600, &attr);
	}
	if (fd < 0)
		return error_set(e, errno,
				 "pid %d fd %d: making message queue %s of %llu messages of %llu bytes (see "
				 "fs.mqueue, "
				 "ulimit -q)",
				 m->pid, m->fd, name, (unsigned long long)q->max_messages,
				 (unsigned long long)q->message_size);
	note(r, (struct mqueue_here){m->id, xstrdup(name), q->deleted, true});
	if (fchown(fd, q->uid, q->gid) < 0 || fchmod(fd, q->mode) < 0)
		return error_set(e, errno, "set owner and mode of message queue %s", name);
	*ret_fd = TAKE_FD(fd);
	return send_all(*ret_fd, q, e);
}

/* By name: what is opened through /proc has O_LARGEFILE, which those of mq_open(3) have not. */
static int open_as(struct rebuild *r, const FileDescription *m, int *ret_fd, struct error *e)
{
	const struct mqueue_here *here = here_of(r, m);

	if (!here)
		return error_say(e, EPROTO, "pid %d fd %d: its message queue is not there", m->pid, m->fd);
	*ret_fd = mq_open(here->name, (m->flags & O_ACCMODE) | O_NONBLOCK | O_CLOEXEC);
	return *ret_fd < 0 ? error_set(e, errno, "pid %d fd %d: opening message queue %s", m->pid, m->fd,
				       here->name)
			   : 0;
}

static int mqueue_open(struct rebuild *r, const FileDescription *m, int *ret_fd, struct error *e)
{
	cleanup_close int queue = -1;
	int x = need_part(m, e);

	if (x < 0)
		return x;
	if (m->mqueue->first != m->id)
		return open_as(r, m, ret_fd, e);
	x = m->mqueue->deleted ? 0 : find(m, &queue, e);
	if (x > 0)
		note(r, (struct mqueue_here){.first = m->id, .name = xstrdup(m->mqueue->name)});
	if (x == 0)
		x = make(r, m, &queue, e);
	return x < 0 ? x : open_as(r, m, ret_fd, e);
}

/* All have opened it. */
static int mqueue_connect(struct rebuild *r, const FileDescription *m, struct error *e)
{
	struct mqueue_here *here = here_of(r, m);

	if (!here || !here->temporary)
		return 0;
	here->temporary = here->made = false;
	return mq_unlink(here->name) < 0 ? error_set(e, errno, "unlink message queue %s", here->name) : 0;
}

/* A process may have several descriptions of one queue, and any of them may be the first. */
static int mqueue_place(struct rebuild *r, const FileDescription *m, struct process *p, int fd,
			struct batch *b, struct error *e)
{
	const FileDescription *first = files_find(r, m->mqueue->first);
	const Ferry__Mqueue *q = first ? first->mqueue : NULL;
	struct sigevent ev = {.sigev_notify = SIGEV_NONE};

	(void)e;
	if (!q || !q->notify_pid || q->notify_pid != p->pid)
		return 0;
	if (q->notify_signal) {
		ev.sigev_notify = SIGEV_SIGNAL;
		ev.sigev_signo = q->notify_signal;
	}
	memcpy(&ev.sigev_value, &q->notify_value, sizeof(q->notify_value));
	unsigned i = batch_call(b, "ask a message queue for a signal", SYS_mq_notify, ARG(fd),
				ARG_PUT(b, &ev, sizeof(ev)));

	batch_accept_errno(b, i, EBUSY);
	return 0;
}

const struct fd_type fd_mqueue = {
	.name = "POSIX message queue",
	.kind = FILE_KIND(MQUEUE),
	.match = mqueue_match,
	.preflight = mqueue_preflight,
	.capture = mqueue_capture,
	.check = mqueue_check,
	.open = mqueue_open,
	.connect = mqueue_connect,
	.place = mqueue_place,
};
