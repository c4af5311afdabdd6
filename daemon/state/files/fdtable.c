/* SPDX-License-Identifier: Apache-2.0 */
/*
 * RECORD_FDTABLE: which number of a process is which description.
 *
 * Rebuild: the process takes the host's descriptors one by one, in ascending order of their final numbers.
 * Its table is emptied first but for the host's pidfd, which is put above all of them (or, where the limit is
 * in the way, into their highest gap).  So the kernel's choice, the lowest free number, is known: it is the
 * final number itself when nothing is free below, else the lowest gap, from where dup3(2) moves it on.  No
 * helper can be in the way of a final number.  What is not with the host but with a process that holds some
 * for it (stock.h) comes after that, from one such process after the other.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/kcmp.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include "base/util.h"
#include "procfs/procfs.h"
#include "state/fetch.h"
#include "state/files/files.h"

#define MAX_NUMBER (1 << 30)

/* --- capture -------------------------------------------------------------------------------------------- */

/* The flag is the table's, not the description's: no copy shows it, only the process itself. */
static int fdtable_ask(struct capture *c, struct process *p, struct thread *t, struct batch *b,
		       void **ret_state, struct error *e)
{
	struct fd_table *table;

	(void)t;
	files_capture_refresh(c);
	int r = files_table_of(c, p, &table, e);

	if (r < 0 || table->shared_with)
		return r;
	unsigned *first = xmalloc(sizeof(*first));

	*first = b->n;
	*ret_state = first;
	for (size_t i = 0; i < table->n; i++)
		batch_call(b, "fcntl(F_GETFD)", SYS_fcntl, ARG(table->fds[i].fd), ARG(F_GETFD));
	return 0;
}

static int cloexec_of(pid_t pid, int fd, bool *ret, struct error *e)
{
	char path[64];
	cleanup_free char *text = NULL;
	uint64_t flags;

	snprintf(path, sizeof(path), "/proc/%d/fdinfo/%d", pid, fd);
	ssize_t n = read_file(path, &text);

	if (n < 0)
		return error_set(e, -n, "pid %d fd %d: reading %s", pid, fd, path);
	if (!proc_field_u64(text, "flags", 8, &flags))
		return error_say(e, EIO, "pid %d fd %d: %s shows no flags", pid, fd, path);
	*ret = flags & O_CLOEXEC;
	return 0;
}

static int put_table(struct capture *c, struct process *p, const struct batch *b, const unsigned *first,
		     struct error *e)
{
	struct files_capture *f = files_capture_of(c);
	struct fd_table *table;
	int r = files_table_of(c, p, &table, e);

	if (r < 0)
		return r;
	Ferry__FdTable *m = xmalloc(sizeof(*m));

	ferry__fd_table__init(m);
	m->shared_with = table->shared_with;
	m->fds = xcalloc(table->n, sizeof(*m->fds));
	for (size_t i = 0; i < table->n && !table->shared_with; i++) {
		Ferry__FdEntry *entry = m->fds[m->n_fds++] = xmalloc(sizeof(*entry));
		bool cloexec = false;

		ferry__fd_entry__init(entry);
		entry->fd = table->fds[i].fd;
		entry->file = table->fds[i].ofd + 1;
		if (b && first)
			cloexec = batch_result(b, *first + i) & FD_CLOEXEC;
		else if (f->frozen)
			r = cloexec_of(process_living(p), entry->fd, &cloexec, e);
		entry->cloexec = cloexec;
		if (r < 0) {
			ferry__fd_table__free_unpacked(m, NULL);
			return r;
		}
	}
	snapshot_put(c->snapshot, FERRY__RECORD_TYPE__RECORD_FDTABLE, p->pid, 0, &m->base);
	return 0;
}

static int fdtable_take_warm(struct capture *c, struct process *p, struct thread *t, struct error *e)
{
	(void)t;
	return put_table(c, p, NULL, NULL, e);
}

static int fdtable_take(struct capture *c, struct process *p, struct thread *t, struct batch *b, void *state,
			struct error *e)
{
	(void)t;
	return put_table(c, p, b, state, e);
}

/* --- rebuild -------------------------------------------------------------------------------------------- */

static int max_number(const Ferry__FdTable *m)
{
	return m->n_fds ? m->fds[m->n_fds - 1]->fd : -1;
}

/* For the pidfd: above all others, or else the highest that is free. -1: there is none. */
static int helper_number(const Ferry__FdTable *m)
{
	struct rlimit l = {1024, 4096};
	int n = max_number(m) + 1;

	getrlimit(RLIMIT_NOFILE, &l);
	if ((rlim_t)n < l.rlim_max)
		return n;
	n--;
	for (size_t i = m->n_fds; i-- > 0 && m->fds[i]->fd == n;)
		n--;
	return n;
}

static int check_helper(int32_t pid, const Ferry__FdTable *m, struct error *e)
{
	return helper_number(m) >= 0 ? 0
				     : error_say(e, EMFILE,
						 "pid %d has %zu descriptors open, and that is the limit "
						 "here (ulimit -n): one "
						 "more is needed to hand them out",
						 pid, m->n_fds);
}

static int check_table(int32_t pid, const Ferry__FdTable *m, struct error *e)
{
	int last = -1;

	for (size_t i = 0; i < m->n_fds; last = m->fds[i++]->fd)
		if (m->fds[i]->fd <= last || m->fds[i]->fd >= MAX_NUMBER)
			return error_say(e, EPROTO, "pid %d: the image has descriptor %d after descriptor %d",
					 pid, m->fds[i]->fd, last);
	return 0;
}

static int fdtable_check(struct rebuild *r, int32_t pid, int32_t tid, const ProtobufCMessage *m,
			 struct error *e)
{
	const Ferry__FdTable *table = (const Ferry__FdTable *)m;
	struct rlimit l;
	int ret = check_table(pid, table, e);

	(void)r;
	(void)tid;
	if (ret < 0 || getrlimit(RLIMIT_NOFILE, &l) < 0)
		return ret;
	if ((rlim_t)(max_number(table) + 1) <= l.rlim_max)
		return check_helper(pid, table, e);
	struct rlimit more = {l.rlim_cur, max_number(table) + 1};

	if (setrlimit(RLIMIT_NOFILE, &more) < 0)
		return error_say(e, EMFILE,
				 "pid %d has descriptor %d open, but the limit here is %llu (ulimit -n)", pid,
				 max_number(table), (unsigned long long)l.rlim_max);
	return 0;
}

static void raise_limit(struct batch *b, int need, size_t *ret_old)
{
	struct rlimit l = {1024, 4096};

	getrlimit(RLIMIT_NOFILE, &l);
	l.rlim_cur = l.rlim_max = MAX(l.rlim_max, (rlim_t)need);
	*ret_old = batch_reserve(b, sizeof(l));
	batch_call(b, "raise the limit of open files", SYS_prlimit64, ARG(0), ARG(RLIMIT_NOFILE),
		   ARG_PUT(b, &l, sizeof(l)), ARG_DATA(*ret_old));
}

/* Empty the table but for the host's pidfd, at @number. */
static void clear_table(struct batch *b, int number)
{
	unsigned pidfd = rebuild_fetch_begin(b);
	unsigned moved = batch_call(b, "move the pidfd of the host", SYS_dup3, ARG_RESULT(pidfd), ARG(number),
				    ARG(O_CLOEXEC));

	batch_accept_errno(b, moved, EINVAL); /* it is there */
	rebuild_fetch_forget(b, pidfd);
	if (number > 0)
		batch_call(b, "close what is open", SYS_close_range, ARG(0), ARG(number - 1), ARG(0));
	batch_call(b, "close what is open", SYS_close_range, ARG(number + 1), ARG(~0u), ARG(0));
}

/* Who has what comes next, at number `pidfd`; `lowest`: the number that the kernel gives out next. */
struct filling {
	struct batch *b;
	const Ferry__FdTable *m;
	int pidfd, lowest;
	pid_t source;
	bool *placed; /* by entry */
	size_t at;    /* first entry that may be above lowest */
};

static void next_lowest(struct filling *f)
{
	for (;;) {
		while (f->at < f->m->n_fds && f->m->fds[f->at]->fd < f->lowest)
			f->at++;
		bool taken = f->at < f->m->n_fds && f->m->fds[f->at]->fd == f->lowest && f->placed[f->at];

		if (!taken && f->lowest != f->pidfd)
			return;
		f->lowest++;
	}
}

static void change_source(struct filling *f, pid_t source)
{
	unsigned pidfd = batch_call(f->b, "open the pidfd of a process that holds descriptors",
				    SYS_pidfd_open, ARG(source), ARG(0));

	batch_call(f->b, "move the pidfd of a process that holds descriptors", SYS_dup3, ARG_RESULT(pidfd),
		   ARG(f->pidfd), ARG(O_CLOEXEC));
	batch_call(f->b, "close a helper descriptor", SYS_close, ARG_RESULT(pidfd));
	f->source = source;
}

static void put_fd(struct filling *f, size_t i, int fd)
{
	const Ferry__FdEntry *entry = f->m->fds[i];
	int lands = MIN(f->lowest, entry->fd);
	unsigned got = batch_call(f->b, "fetch a descriptor of the host", SYS_pidfd_getfd, ARG(f->pidfd),
				  ARG(fd), ARG(0));

	batch_accept_equal(f->b, got, lands);
	if (lands != entry->fd) {
		batch_call(f->b, "move a descriptor to its number", SYS_dup3, ARG(lands), ARG(entry->fd),
			   ARG(entry->cloexec ? O_CLOEXEC : 0));
		batch_call(f->b, "close a helper descriptor", SYS_close, ARG(lands));
	} else if (!entry->cloexec) {
		batch_call(f->b, "clear close-on-exec", SYS_fcntl, ARG(entry->fd), ARG(F_SETFD), ARG(0));
	}
	f->placed[i] = true;
	next_lowest(f);
}

/* The number that the signal of O_ASYNC carries is that of the call which switched it on. */
static void switch_async_on(const FileDescription *m, const struct process *p, int fd, struct batch *b)
{
	if (m->flags & O_ASYNC && !(m->flags & O_PATH) && m->pid == p->pid && m->fd == fd)
		batch_call(b, "switch signals on", SYS_fcntl, ARG(fd), ARG(F_SETFL), ARG(m->flags));
}

/* Types that refer to other descriptors of the process (epoll), once per description. */
static int place_all(struct rebuild *r, struct process *p, const Ferry__FdTable *m,
		     const struct index_map *first, struct batch *b, struct error *e)
{
	for (size_t i = 0; i < m->n_fds; i++) {
		if (index_map_find(first, m->fds[i]->file, 0) != i + 1)
			continue;
		const FileDescription *file = files_find(r, m->fds[i]->file);
		const struct fd_type *type = file ? fd_type_of_kind(file->kind) : NULL;
		int ret = type && type->place ? type->place(r, file, p, m->fds[i]->fd, b, e) : 0;

		if (ret < 0)
			return ret;
		if (file)
			switch_async_on(file, p, m->fds[i]->fd, b);
	}
	return 0;
}

/* Those that the source has, and other numbers of what is in place. *ret_next: another source, 0: all done.
 */
static int fill_from(struct rebuild *r, struct process *p, struct filling *f, const struct index_map *first,
		     pid_t *ret_next, struct error *e)
{
	*ret_next = 0;
	for (size_t i = 0; i < f->m->n_fds; i++) {
		const Ferry__FdEntry *entry = f->m->fds[i];
		size_t one = index_map_find(first, entry->file, 0) - 1;
		pid_t source;
		int fd;

		if (f->placed[i])
			continue;
		if (f->placed[one]) {
			batch_call(f->b, "duplicate a descriptor", SYS_dup3, ARG(f->m->fds[one]->fd),
				   ARG(entry->fd), ARG(entry->cloexec ? O_CLOEXEC : 0));
			f->placed[i] = true;
			next_lowest(f);
			continue;
		}
		if (!files_where(r, entry->file, &source, &fd))
			return error_say(e, EPROTO, "pid %d fd %d: the image has no open file %llu", p->pid,
					 entry->fd, (unsigned long long)entry->file);
		if (i == one && source == f->source)
			put_fd(f, i, fd);
		else if (i == one && !*ret_next)
			*ret_next = source;
	}
	return 0;
}

static int fill_table(struct rebuild *r, struct process *p, const Ferry__FdTable *m, struct index_map *first,
		      int pidfd, struct batch *b, struct error *e)
{
	cleanup_free bool *placed = xcalloc(m->n_fds + 1, sizeof(*placed));
	struct filling f = {.b = b, .m = m, .pidfd = pidfd, .source = getpid(), .placed = placed};
	pid_t next = f.source;
	int ret = 0;

	for (size_t i = 0; i < m->n_fds; i++) {
		uint32_t *slot = index_map_at(first, m->fds[i]->file, 0);

		if (!*slot)
			*slot = i + 1;
	}
	next_lowest(&f);
	while (next && ret >= 0) {
		if (next != f.source)
			change_source(&f, next);
		ret = fill_from(r, p, &f, first, &next, e);
	}
	return ret < 0 ? ret : place_all(r, p, m, first, b, e);
}

static int fdtable_build(struct rebuild *r, struct process *p, struct thread *t,
			 const ProtobufCMessage *message, struct batch *b, struct error *e)
{
	const Ferry__FdTable *m = (const Ferry__FdTable *)message;
	struct index_map first = {0};
	int ret = check_table(p->pid, m, e);

	(void)t;
	if (ret < 0)
		return ret;
	if (m->shared_with)
		return sys_kcmp(p->pid, m->shared_with, KCMP_FILES, 0, 0) == 0
			       ? 0
			       : error_say(e, ENOTSUP,
					   "pid %d shares its descriptor table with pid %d, which cannot be "
					   "rebuilt yet",
					   p->pid, m->shared_with);
	int pidfd = helper_number(m);
	size_t old_limit;

	ret = check_helper(p->pid, m, e);
	if (ret < 0)
		return ret;
	raise_limit(b, MAX(pidfd, max_number(m)) + 1, &old_limit);
	clear_table(b, pidfd);
	ret = fill_table(r, p, m, &first, pidfd, b, e);
	batch_call(b, "close the pidfd of the host", SYS_close, ARG(pidfd));
	batch_call(b, "put the limit of open files back", SYS_prlimit64, ARG(0), ARG(RLIMIT_NOFILE),
		   ARG_DATA(old_limit), ARG(0));
	index_map_deinit(&first);
	return ret;
}

/* All batches have run, all processes have theirs: our descriptors would keep pipes and sockets from ever
 * ending. */
static int fdtable_finish(struct rebuild *r, struct process *p, struct thread *t, const ProtobufCMessage *m,
			  struct error *e)
{
	(void)p;
	(void)t;
	(void)m;
	return files_rebuild_finish(r, e);
}

const struct state_kind kind_fdtable = {
	.name = "files/fdtable",
	.type = FERRY__RECORD_TYPE__RECORD_FDTABLE,
	.scope = KIND_PROCESS,
	.descriptor = &ferry__fd_table__descriptor,
	.take_warm = fdtable_take_warm,
	.ask = fdtable_ask,
	.take = fdtable_take,
	.check = fdtable_check,
	.build = fdtable_build,
	.finish = fdtable_finish,
};
