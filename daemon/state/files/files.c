/* SPDX-License-Identifier: Apache-2.0 */
/*
 * RECORD_FILES: every open file description of the tree, once.  Capture asks the type of each; rebuild opens
 * each in the host, lets types refer to one another, and leaves it to fdtable.c to hand them to the
 * processes.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>

#include "base/util.h"
#include "state/files/external.h"
#include "state/files/files.h"
#include "state/memory/memory.h"
#include "state/sockets/tcp.h"

/* A look is used again for so long, or for that many times as long as it took: the more processes ask one
 * after the other, the longer they take. */
#define REUSE_NS    200000000u
#define REUSE_TIMES 20

/* --- capture -------------------------------------------------------------------------------------------- */

const char *fd_facts_info(struct fd_facts *f, struct error *e)
{
	if (!f->fdinfo) {
		char path[64];

		snprintf(path, sizeof(path), "/proc/%d/fdinfo/%d", f->extra ? getpid() : f->living,
			 f->extra ? f->copy : f->fd);
		ssize_t n = read_file(path, &f->fdinfo);

		if (n < 0) {
			error_set(e, -n, "pid %d fd %d: reading %s", f->pid, f->fd, path);
			return NULL;
		}
	}
	return f->fdinfo;
}

static bool in_tree(const struct tree *t, const struct f_owner_ex *owner)
{
	for (size_t i = 0; i < t->n; i++) {
		const struct process *p = t->procs[i];

		if (owner->type == F_OWNER_PGRP ? p->pgid == owner->pid : p->pid == owner->pid)
			return true;
		for (size_t k = 0; owner->type == F_OWNER_TID && k < p->n_threads; k++)
			if (p->threads[k]->task.tid == owner->pid)
				return true;
	}
	return false;
}

static void note_owner(struct capture *c, const struct ofd *o, FileDescription *m)
{
	bool has = o->owner.pid != 0;

	if (has && !in_tree(c->tree, &o->owner)) {
		events_log(c->events, 2, "pid %d fd %d: its signals go to pid %d outside the tree: not kept",
			   o->pid, o->fd, o->owner.pid);
		has = false;
	}
	if (!has && !o->signal)
		return;
	m->owner = xmalloc(sizeof(*m->owner));
	ferry__file_owner__init(m->owner);
	m->owner->type = o->owner.type;
	m->owner->pid = has ? o->owner.pid : 0;
	m->owner->signal = o->signal;
}

/* A copy of the description, if it is still the one that was scanned. -ESTALE: not. */
static int open_copy(struct capture *c, const struct ofd *o, struct error *e)
{
	int copy = files_copy_of(c, o, e);
	struct stat st;

	if (copy < 0)
		return copy;
	if (fstat(copy, &st) < 0 || st.st_dev != o->st.st_dev || st.st_ino != o->st.st_ino) {
		close(copy);
		return error_set(e, ESTALE, "pid %d fd %d: changed while it was looked at", o->pid, o->fd);
	}
	return copy;
}

/* Kind and family decide on a socket's type, and only the socket knows. */
static int ask_socket(struct capture *c, const struct ofd *o, struct fd_facts *f, struct error *e)
{
	socklen_t n = sizeof(int);

	if (!S_ISSOCK(o->st.st_mode) || o->flags & O_PATH)
		return 0;
	f->copy = open_copy(c, o, e);
	if (f->copy < 0)
		return f->copy;
	if (getsockopt(f->copy, SOL_SOCKET, SO_DOMAIN, &f->domain, &n) < 0 ||
	    getsockopt(f->copy, SOL_SOCKET, SO_TYPE, &f->type, &n) < 0 ||
	    getsockopt(f->copy, SOL_SOCKET, SO_PROTOCOL, &f->protocol, &n) < 0)
		return error_set(e, errno, "pid %d fd %d: asking for the family of its socket", f->pid,
				 f->fd);
	return 0;
}

static int check_extra(const struct ofd *o, const struct fd_facts *f, struct error *e)
{
	cleanup_free char *text = NULL;
	char path[64];

	if (!f->extra || f->link[0] != '/' || f->flags & O_PATH)
		return 0;
	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", o->extra);
	ssize_t n = read_file(path, &text);

	return n < 0 ? error_set(e, -n, "pid %d fd %d: reading %s", f->pid, f->fd, path)
		     : locks_check_extra(f, text, e);
}

static int describe(struct capture *c, uint32_t index, FileDescription *m, struct error *e)
{
	struct files_capture *f = files_capture_of(c);
	const struct ofd *o = &f->ofds[index];
	struct fd_facts facts = {.pid = o->seen_pid,
				 .fd = o->seen_fd,
				 .living = o->extra >= 0 ? o->seen_pid : o->living,
				 .copy = -1,
				 .link = o->link,
				 .st = o->st,
				 .flags = o->flags,
				 .pos = o->pos,
				 .frozen = f->frozen,
				 .path_ok = o->path_ok,
				 .extra = o->extra >= 0,
				 .domain = -1,
				 .type = -1,
				 .protocol = -1,
				 .id = index + 1};
	int r = ask_socket(c, o, &facts, e);

	if (r >= 0)
		r = check_extra(o, &facts, e);
	if (r < 0) {
		if (facts.copy >= 0)
			close(facts.copy);
		return r;
	}
	if (c->options && external_find(&facts, c->options, e) < 0) {
		if (facts.copy >= 0)
			close(facts.copy);
		return -e->code;
	}
	const struct fd_type *type = fd_type_match(&facts);

	m->id = facts.id;
	m->kind = type->kind;
	m->flags = o->flags;
	m->pos = o->pos;
	m->pid = facts.pid;
	m->fd = facts.fd;
	note_owner(c, o, m);
	if (!type->by_path && facts.copy < 0) {
		facts.copy = open_copy(c, o, e);
		if (facts.copy < 0)
			return facts.copy;
	}
	if (!f->frozen && type->preflight)
		r = type->preflight(c, &facts, e);
	if (r >= 0)
		r = type->capture(c, &facts, m, e);
	if (facts.copy >= 0)
		close(facts.copy);
	free(facts.fdinfo);
	return r < 0 ? r : 0;
}

static bool vanished(const struct error *e)
{
	return e->code == EBADF || e->code == ENOENT || e->code == ESRCH || e->code == ESTALE;
}

/* Describe all; types may find more (descriptors queued in sockets) on the way. */
static int describe_all(struct capture *c, Ferry__Files *all, struct error *e)
{
	struct files_capture *f = files_capture_of(c);
	size_t cap = 0;

	for (uint32_t i = 0; i < f->n; i++) {
		if (!f->ofds[i].link || !strcmp(f->ofds[i].link, "gone:"))
			continue;
		FileDescription *m = xmalloc(sizeof(*m));

		ferry__file_description__init(m);
		int r = describe(c, i, m, e);

		if (r < 0) {
			ferry__file_description__free_unpacked(m, NULL);
			if (f->frozen || !vanished(e))
				return r;
			error_clear(e);
			continue;
		}
		FILES_GROW(all->files, all->n_files, cap);
		all->files[all->n_files++] = m;
	}
	for (size_t i = 0; fd_types[i]; i++) {
		int r = fd_types[i]->settle ? fd_types[i]->settle(c, all, e) : 0;

		if (r < 0)
			return r;
	}
	return 0;
}

static int collect(struct capture *c, Ferry__Files **ret, struct error *e)
{
	for (size_t i = 0; i < c->tree->n; i++) {
		struct fd_table *t;
		int r = c->tree->procs[i]->state == PROCESS_ZOMBIE
				? 0
				: files_table_of(c, c->tree->procs[i], &t, e);

		if (r < 0)
			return r;
	}
	int r = c->tree->frozen ? inotify_check_queues(c, e) : 0;

	if (r >= 0 && c->tree->frozen)
		r = tcp_hold(c, e);
	if (r < 0)
		return r;
	Ferry__Files *all = xmalloc(sizeof(*all));

	ferry__files__init(all);
	r = describe_all(c, all, e);

	unix_capture_free(c);
	files_drop_extra(c);
	if (r < 0) {
		ferry__files__free_unpacked(all, NULL);
		return r;
	}
	*ret = all;
	return 0;
}

static size_t count_objects(const struct capture *c)
{
	return c->memory ? ((const struct memory *)c->memory)->n_objects : 0;
}

static int scan_warm(struct capture *c, struct error *e)
{
	struct files_capture *f = files_capture_of(c);

	if (f->warm)
		ferry__files__free_unpacked(f->warm, NULL);
	f->warm = NULL;
	files_capture_refresh(c);
	files_capture_reset(f);
	uint64_t t0 = now_ns();
	int r = collect(c, &f->warm, e);

	f->warm_time = now_ns();
	f->warm_for = MAX((f->warm_time - t0) * REUSE_TIMES, REUSE_NS);
	f->warm_objects = count_objects(c);
	return r;
}

/* Asked for every process, but what is shared and who is connected to whom shows in the whole tree only. One
 * look serves all that ask at about the same time. Of a frozen tree capture itself refuses. */
static int files_preflight(struct capture *c, struct process *p, struct error *e)
{
	struct files_capture *f = files_capture_of(c);

	(void)p;
	if (c->tree->frozen)
		return 0;
	files_capture_refresh(c);
	if (f->warm && now_ns() - f->warm_time < f->warm_for)
		return 0;
	return scan_warm(c, e);
}

static int files_take_warm(struct capture *c, struct process *p, struct thread *t, struct error *e)
{
	struct files_capture *f = files_capture_of(c);

	(void)p;
	(void)t;
	files_capture_refresh(c);
	if (!f->warm || f->warm_objects != count_objects(c)) {
		int r = scan_warm(c, e);

		if (r < 0)
			return r;
	}
	snapshot_put(c->snapshot, FERRY__RECORD_TYPE__RECORD_FILES, 0, 0, &TAKE_PTR(f->warm)->base);
	return 0;
}

static int files_take(struct capture *c, struct process *p, struct thread *t, struct batch *b, void *state,
		      struct error *e)
{
	Ferry__Files *all = NULL;

	(void)p;
	(void)t;
	(void)b;
	(void)state;
	files_capture_refresh(c);
	int r = collect(c, &all, e);

	if (r < 0)
		return r;
	files_capture_of(c)->taken = true;
	snapshot_put(c->snapshot, FERRY__RECORD_TYPE__RECORD_FILES, 0, 0, &all->base);
	return 0;
}

int files_capture_extra(struct capture *c, pid_t pid, int fd, int copy, uint64_t *ret_id, struct error *e)
{
	struct files_capture *f = files_capture_of(c);
	uint32_t index = 0;
	int r = files_identify_copy(c, copy, &index, e);

	if (r < 0)
		return r;
	if (r > 0) {
		f->ofds[index].seen_pid = pid;
		f->ofds[index].seen_fd = fd;
	}
	*ret_id = index + 1;
	return 0;
}

/* --- rebuild -------------------------------------------------------------------------------------------- */

static int files_check(struct rebuild *r, int32_t pid, int32_t tid, const ProtobufCMessage *m,
		       struct error *e)
{
	const Ferry__Files *all = (const Ferry__Files *)m;

	(void)pid;
	(void)tid;
	if (files_rebuild_of(r)->checked)
		return 0;
	for (size_t i = 0; i < all->n_files; i++) {
		const struct fd_type *type = fd_type_of_kind(all->files[i]->kind);

		if (!type)
			return error_say(e, EPROTO,
					 "pid %d fd %d: the image has a kind of descriptor (%d) this version "
					 "does not know",
					 all->files[i]->pid, all->files[i]->fd, all->files[i]->kind);
		int ret = type->check ? type->check(r, all->files[i], e) : 0;

		if (ret < 0)
			return ret;
	}
	files_rebuild_of(r)->checked = true;
	return 0;
}

static int set_owner(struct rebuild *r, size_t i, const FileDescription *m, struct error *e)
{
	if (!m->owner || m->flags & O_PATH)
		return 0;
	int fd = files_get(r, i, e);

	if (fd < 0)
		return fd;
	struct f_owner_ex owner = {.type = m->owner->type, .pid = m->owner->pid};

	if (owner.pid && fcntl(fd, F_SETOWN_EX, &owner) < 0)
		return error_set(e, errno, "pid %d fd %d: giving its signals to %d", m->pid, m->fd,
				 owner.pid);
	if (m->owner->signal && fcntl(fd, F_SETSIG, m->owner->signal) < 0)
		return error_set(e, errno, "pid %d fd %d: setting its signal %d", m->pid, m->fd,
				 m->owner->signal);
	return 0;
}

static int set_flags(struct rebuild *r, size_t i, const FileDescription *m, struct error *e)
{
	int fd = files_get(r, i, e);

	return fd < 0 ? fd : files_set_flags(fd, m->flags, m, e);
}

static int open_all(struct rebuild *r, const Ferry__Files *all, struct error *e)
{
	for (size_t i = 0; i < all->n_files; i++) {
		const FileDescription *m = all->files[i];
		const struct fd_type *type = fd_type_of_kind(m->kind);

		if (!type || !type->open)
			return error_say(e, EPROTO,
					 "pid %d fd %d: the image has a kind of descriptor (%d) this version "
					 "does not know",
					 m->pid, m->fd, m->kind);
		int fd = -1, ret = type->open(r, m, &fd, e);

		if (fd >= 0)
			files_put(r, i, fd);
		if (ret >= 0 && !inherited_is(r, m))
			ret = set_owner(r, i, m, e);
		if (ret >= 0)
			ret = files_trim(r, e);
		if (ret < 0)
			return ret;
	}
	for (size_t i = 0; i < all->n_files; i++) {
		const FileDescription *m = all->files[i];
		const struct fd_type *type = fd_type_of_kind(m->kind);
		int ret = type->connect ? type->connect(r, m, e) : 0;

		/* The flags of the caller's descriptors are the caller's. */
		if (ret >= 0 && !inherited_is(r, m))
			ret = set_flags(r, i, m, e);
		if (ret >= 0)
			ret = files_trim(r, e);
		if (ret < 0)
			return ret;
	}
	return 0;
}

static int files_prepare(struct rebuild *r, const ProtobufCMessage *m, struct error *e)
{
	const Ferry__Files *all = (const Ferry__Files *)m;
	int ret = files_rebuild_begin(r, all, e);

	return ret < 0 ? ret : open_all(r, all, e);
}

const struct state_kind kind_files = {
	.name = "files/files",
	.type = FERRY__RECORD_TYPE__RECORD_FILES,
	.scope = KIND_TREE,
	.descriptor = &ferry__files__descriptor,
	.preflight = files_preflight,
	.take_warm = files_take_warm,
	.take = files_take,
	.check = files_check,
	.prepare = files_prepare,
};
