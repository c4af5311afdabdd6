/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which open file descriptions a tree has, and who shares them.
 *
 * Every number of every process is copied with pidfd_getfd(2), looked at and closed again at once: a copy is
 * a full reference, so a close() in a running target would not be the last one while we hold it.  Two numbers
 * are one description when kcmp(2) says so; it is only asked when device, inode and flags are equal, and then
 * by binary search (kcmp gives an order), so that thousands of descriptors of the one anonymous inode cost n
 * log n calls.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/kcmp.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>

#include "base/util.h"
#include "procfs/procfs.h"
#include "state/files/files.h"
#include "state/files/inode_path.h"
#include "state/sockets/tcp.h"

struct files_capture *files_capture_of(struct capture *c)
{
	if (!c->files)
		c->files = xcalloc(1, sizeof(struct files_capture));
	return c->files;
}

static void free_buckets(struct ofd_bucket *b, size_t n)
{
	for (size_t i = 0; i < n; i++)
		free(b[i].v);
	free(b);
}

void files_capture_reset(struct files_capture *f)
{
	for (size_t i = 0; i < f->n; i++) {
		free(f->ofds[i].link);
		if (f->ofds[i].extra >= 0)
			close(f->ofds[i].extra);
	}
	free(f->ofds);
	for (size_t i = 0; i < f->n_tables; i++)
		free(f->tables[i].fds);
	free(f->tables);
	free_buckets(f->buckets, f->n_buckets);
	free_buckets(f->table_buckets, f->n_table_buckets);
	index_map_deinit(&f->by_pid);
	index_map_deinit(&f->by_key);
	index_map_deinit(&f->by_content);
	index_map_deinit(&f->by_ghost);
	index_map_deinit(&f->by_pipe);
	index_map_deinit(&f->bpf_maps);
	index_map_deinit(&f->mqueues);
	index_map_deinit(&f->mqueues_outside);
	f->mqueues_known = false;
	index_map_deinit(&f->locked);
	index_map_deinit(&f->ttys);
	f->locks_read = f->locks_everywhere = false;
	index_map_deinit(&f->eventfds_outside);
	f->eventfds_known = false;
	free(f->pipes);
	f->pipes = NULL;
	f->n_pipes = f->cap_pipes = 0;
	f->ofds = NULL;
	f->tables = NULL;
	f->buckets = f->table_buckets = NULL;
	f->n = f->cap = f->n_tables = f->cap_tables = f->n_buckets = f->cap_buckets = 0;
	f->n_table_buckets = f->cap_table_buckets = 0;
	f->taken = f->in_flight = false;
}

void files_capture_refresh(struct capture *c)
{
	struct files_capture *f = files_capture_of(c);

	if (f->taken || f->frozen != c->tree->frozen)
		files_capture_reset(f);
	/* It was found in the tables that have just been forgotten. */
	if (f->frozen != c->tree->frozen && f->warm)
		ferry__files__free_unpacked(TAKE_PTR(f->warm), NULL);
	f->frozen = c->tree->frozen;
}

void files_capture_free(struct capture *c)
{
	struct files_capture *f = c->files;

	unix_capture_free(c);
	tcp_capture_free(c);
	if (!f)
		return;
	files_capture_reset(f);
	if (f->warm)
		ferry__files__free_unpacked(f->warm, NULL);
	for (size_t i = 0; i < f->n_links; i++)
		free(f->links[i].text);
	free(f->links);
	free(f->devs);
	inode_paths_free(f->inode_paths);
	tty_forget_drained(f);
	link_remap_free(f);
	index_map_deinit(&f->by_number);
	index_map_deinit(&f->by_tid);
	index_map_deinit(&f->by_dev);
	free(f);
	c->files = NULL;
}

int files_capture_undo(struct capture *c, struct error *e)
{
	int r = c->files ? tty_undo(c, e) : 0;
	int tcp = tcp_undo(c, e);

	return r < 0 ? r : tcp;
}

void files_drop_extra(struct capture *c)
{
	struct files_capture *f = files_capture_of(c);

	for (size_t i = 0; i < f->n; i++) {
		if (f->ofds[i].extra >= 0)
			close(f->ofds[i].extra);
		f->ofds[i].extra = -1;
	}
}

/* --- identity ----------------------------------------------------------------------------------------- */

/* Where an equal one is, or would have to be put. 1: found, 0: not, -errno. */
static int bucket_search(const struct files_capture *f, const struct ofd_bucket *b, pid_t living, int fd,
			 size_t *ret_at, struct error *e)
{
	size_t low = 0, high = b->n;

	while (low < high) {
		size_t mid = (low + high) / 2;
		const struct ofd *o = &f->ofds[b->v[mid]];
		int order = sys_kcmp(living, o->living, KCMP_FILE, fd, o->extra >= 0 ? o->extra : o->fd);

		if (order == 0) {
			*ret_at = mid;
			return 1;
		}
		if (order < 0 && f->frozen)
			return error_set(e, -order, "pid %d fd %d: comparing with pid %d fd %d", living, fd,
					 o->pid, o->fd);
		/* Of a running target either may be gone by now: any place will do. */
		if (order == 1)
			high = mid;
		else
			low = mid + 1;
	}
	*ret_at = low;
	return 0;
}

static void bucket_insert(struct ofd_bucket *b, size_t at, uint32_t value)
{
	FILES_GROW(b->v, b->n, b->cap);
	memmove(b->v + at + 1, b->v + at, (b->n - at) * sizeof(*b->v));
	b->v[at] = value;
	b->n++;
}

/* Description behind number @fd of @pid, of which @copy is our copy; made if new. 1: it is new, 0, -errno. */
static int identify(struct files_capture *f, pid_t pid, pid_t living, int fd, int copy, uint32_t *ret,
		    struct error *e)
{
	struct ofd o = {.pid = pid, .living = living, .fd = fd, .seen_pid = pid, .seen_fd = fd, .extra = -1};

	if (fstat(copy, &o.st) < 0)
		return error_set(e, errno, "pid %d fd %d: fstat", pid, fd);
	o.flags = fcntl(copy, F_GETFL);
	if (o.flags < 0)
		return error_set(e, errno, "pid %d fd %d: reading its flags", pid, fd);

	uint64_t dev = (uint64_t)major(o.st.st_dev) << 20 | minor(o.st.st_dev);
	uint32_t *slot = index_map_at(&f->by_key, dev << 32 | (uint32_t)o.flags, o.st.st_ino);

	if (!*slot) {
		FILES_GROW(f->buckets, f->n_buckets, f->cap_buckets);
		f->buckets[f->n_buckets++] = (struct ofd_bucket){0};
		*slot = f->n_buckets;
	}
	struct ofd_bucket *b = &f->buckets[*slot - 1];
	size_t at = 0;
	int found = 0;

	if (b->n && S_ISSOCK(o.st.st_mode) && !(o.flags & O_PATH))
		found = 1; /* a socket cannot be opened a second time */
	else if (b->n)
		found = bucket_search(f, b, living, fd, &at, e);
	if (found < 0)
		return found;
	if (found) {
		*ret = b->v[at];
		return 0;
	}
	if (!(o.flags & O_PATH)) {
		off_t pos = S_ISFIFO(o.st.st_mode) || S_ISSOCK(o.st.st_mode) ? -1 : lseek(copy, 0, SEEK_CUR);

		o.pos = pos > 0 ? pos : 0;
		if (fcntl(copy, F_GETOWN_EX, &o.owner) < 0)
			o.owner.pid = 0;
		o.signal = fcntl(copy, F_GETSIG);
		if (o.signal < 0)
			o.signal = 0;
	}
	FILES_GROW(f->ofds, f->n, f->cap);
	f->ofds[f->n] = o;
	bucket_insert(b, at, f->n);
	*ret = f->n++;
	return 1;
}

/* --- links ---------------------------------------------------------------------------------------------- */

static bool leads_to(const char *path, const struct stat *st)
{
	struct stat there;

	return path[0] == '/' && lstat(path, &there) == 0 && there.st_dev == st->st_dev &&
	       there.st_ino == st->st_ino;
}

static bool is_anonymous_pipe(const struct stat *st)
{
	static dev_t pipe_dev;

	if (!pipe_dev) {
		int p[2];
		struct stat own;

		if (pipe(p) < 0)
			return false;
		if (fstat(p[0], &own) == 0)
			pipe_dev = own.st_dev;
		close(p[0]);
		close(p[1]);
	}
	return S_ISFIFO(st->st_mode) && st->st_dev == pipe_dev;
}

static int read_link(struct files_capture *f, struct ofd *o, struct error *e)
{
	if (S_ISSOCK(o->st.st_mode) && !(o->flags & O_PATH)) {
		o->link = xstrdup("socket:");
		return 0;
	}
	if (is_anonymous_pipe(&o->st)) {
		o->link = xstrdup("pipe:");
		return 0;
	}
	uint32_t *slot = index_map_at(&f->by_number, o->pid, o->fd);

	if (*slot) {
		struct link_cache *l = &f->links[*slot - 1];

		/* A name that leads to the file is as good as the one the kernel would print now. */
		if (l->dev == o->st.st_dev && l->ino == o->st.st_ino && leads_to(l->text, &o->st)) {
			o->link = xstrdup(l->text);
			o->path_ok = true;
			return 0;
		}
		free(l->text);
		l->text = NULL;
	} else {
		FILES_GROW(f->links, f->n_links, f->cap_links);
		f->links[f->n_links++] = (struct link_cache){0};
		*slot = f->n_links;
	}
	struct link_cache *l = &f->links[*slot - 1];
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/fd/%d", o->living, o->extra >= 0 ? o->extra : o->fd);
	int r = readlink_at(AT_FDCWD, path, &o->link);

	if (r < 0) {
		l->text = xstrdup("");
		return error_set(e, -r, "pid %d fd %d: reading %s", o->seen_pid, o->seen_fd, path);
	}
	o->path_ok = leads_to(o->link, &o->st);
	*l = (struct link_cache){o->st.st_dev, o->st.st_ino, xstrdup(o->link)};
	return 0;
}

static bool is_one_of(uint32_t type, const uint32_t *types, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (types[i] == type)
			return true;
	return false;
}

static const struct pseudo_dev *dev_of(struct capture *c, dev_t dev, const char *path)
{
	struct files_capture *f = files_capture_of(c);
	uint32_t *slot = index_map_at(&f->by_dev, dev, 0);

	if (!*slot) {
		/* proc, sysfs, cgroup, cgroup2, debugfs, tracefs, securityfs, bpf, devpts, mqueue, selinux,
		 * pstore, configfs */
		static const uint32_t pseudo[] = {0x9fa0,     0x62656572, 0x27e0eb,   0x63677270, 0x64626720,
						  0x74726163, 0x73636673, 0xcafe4a11, 0x1cd1,     0x19800202,
						  0xf97cff8c, 0x6165676c, 0x62656570};
		/* overlayfs, aufs, btrfs, bcachefs; those of servers: nfs, cifs, smb2, fuse, 9p, ceph */
		static const uint32_t odd[] = {0x794c7630, 0x61756673, 0x9123683e, 0xca451a4e, 0x6969,
					       0xff534d42, 0xfe534d42, 0x65735546, 0x01021997, 0x00c36400};
		struct statfs fs;
		struct pseudo_dev d = {.odd = true};

		if (statfs(path, &fs) == 0) {
			d.pseudo = is_one_of(fs.f_type, pseudo, ARRAY_SIZE(pseudo));
			d.odd = is_one_of(fs.f_type, odd, ARRAY_SIZE(odd));
		}
		FILES_GROW(f->devs, f->n_devs, f->cap_devs);
		f->devs[f->n_devs++] = d;
		*slot = f->n_devs;
	}
	return &f->devs[*slot - 1];
}

bool files_dev_is_pseudo(struct capture *c, dev_t dev, const char *path)
{
	return dev_of(c, dev, path)->pseudo;
}

bool files_dev_is_odd(struct capture *c, dev_t dev, const char *path)
{
	return dev_of(c, dev, path)->odd;
}

/* --- scanning ------------------------------------------------------------------------------------------- */

int files_copy_of(struct capture *c, const struct ofd *o, struct error *e)
{
	if (o->extra >= 0) {
		int copy = fcntl(o->extra, F_DUPFD_CLOEXEC, 0);

		return copy < 0 ? error_set(e, errno, "copying a descriptor") : copy;
	}
	struct process *p = tree_find(c->tree, o->pid);
	cleanup_close int own = p && p->pidfd >= 0 ? -1 : sys_pidfd_open(o->pid, 0);
	int copy = sys_pidfd_getfd(own >= 0 || !p ? own : process_living_fd(p), o->fd);

	return copy < 0 ? error_set(e, -copy, "pid %d fd %d: copying it with pidfd_getfd", o->pid, o->fd)
			: copy;
}

/* 0: no such number, 1: taken up, -errno. */
static int scan_number(struct files_capture *f, struct fd_table *t, int pidfd, int fd, struct error *e)
{
	cleanup_close int copy = sys_pidfd_getfd(pidfd, fd);

	if (copy == -EBADF)
		return 0;
	if (copy == -ESRCH && !f->frozen)
		return -ESRCH;
	if (copy < 0)
		return error_set(e, -copy, "pid %d fd %d: copying it with pidfd_getfd", t->pid, fd);
	uint32_t index = 0;
	int is_new = identify(f, t->pid, t->living, fd, copy, &index, e);

	if (is_new < 0)
		return is_new;
	if (is_new) {
		int r = read_link(f, &f->ofds[index], e);

		if (r < 0 && !f->frozen) { /* closed meanwhile: the next look will tell */
			error_clear(e);
			f->ofds[index].link = xstrdup("gone:");
		} else if (r < 0) {
			return r;
		}
	}
	FILES_GROW(t->fds, t->n, t->cap);
	t->fds[t->n++] = (struct fd_slot){fd, index};
	return 1;
}

/* Trying numbers is several times cheaper than reading the directory, unless they are far apart. */
static int scan_numbers(struct files_capture *f, struct fd_table *t, int pidfd, struct error *e)
{
	char path[64];
	struct stat st;

	snprintf(path, sizeof(path), "/proc/%d/fd", t->living);
	if (stat(path, &st) < 0)
		return errno == ENOENT && !f->frozen ? -ESRCH : error_set(e, errno, "%s", path);
	size_t left = st.st_size, misses = 0;
	int fd = 0, r;

	/* Before Linux 6.2 the size is 0: then the directory tells. */
	for (; left && misses < 1024 + left * 4; fd++) {
		r = scan_number(f, t, pidfd, fd, e);
		if (r < 0)
			return r;
		left -= r;
		misses += !r;
	}
	if (!left && st.st_size)
		return 0;
	cleanup_free int *numbers = NULL;
	size_t n = 0;

	r = proc_fds(t->living, &numbers, &n, e);
	if ((r == -ENOENT || r == -ESRCH) && !f->frozen) {
		error_clear(e);
		return -ESRCH;
	}
	for (size_t i = 0; r >= 0 && i < n; i++)
		if (numbers[i] >= fd)
			r = scan_number(f, t, pidfd, numbers[i], e);
	return r < 0 ? r : 0;
}

size_t files_count(pid_t pid)
{
	char path[64];
	struct stat st = {0};
	cleanup_free int *numbers = NULL;
	struct error ignore = ERROR_INIT;
	size_t n = 0;

	snprintf(path, sizeof(path), "/proc/%d/fd", pid);
	if (stat(path, &st) == 0 && st.st_size > 0)
		return (size_t)st.st_size;
	return proc_fds(pid, &numbers, &n, &ignore) < 0 ? 0 : n;
}

/* A table that another process has too (CLONE_FILES): its content is the same, and kcmp says so. */
static void find_shared(struct files_capture *f, struct fd_table *t)
{
	uint64_t hash = 0xcbf29ce484222325u;

	for (size_t i = 0; i < t->n; i++)
		hash = (hash ^ ((uint64_t)t->fds[i].fd << 32 | t->fds[i].ofd)) * 0x100000001b3u;
	uint32_t *slot = index_map_at(&f->by_content, hash, t->n);

	if (!*slot) {
		FILES_GROW(f->table_buckets, f->n_table_buckets, f->cap_table_buckets);
		f->table_buckets[f->n_table_buckets++] = (struct ofd_bucket){0};
		*slot = f->n_table_buckets;
	}
	struct ofd_bucket *b = &f->table_buckets[*slot - 1];
	size_t low = 0, high = b->n;

	while (low < high) {
		size_t mid = (low + high) / 2;
		int order = sys_kcmp(t->living, f->tables[b->v[mid]].living, KCMP_FILES, 0, 0);

		if (order == 0) {
			t->shared_with = f->tables[b->v[mid]].pid;
			return;
		}
		if (order == 1)
			high = mid;
		else
			low = mid + 1;
	}
	bucket_insert(b, low, t - f->tables);
}

/* Threads can have a table or a working directory of their own (unshare): nothing here could rebuild that. */
static int check_threads(struct files_capture *f, const struct process *p, struct error *e)
{
	for (size_t i = 1; i < p->n_threads; i++) {
		pid_t tid = p->threads[i]->task.tid;
		uint32_t *seen = index_map_at(&f->by_tid, tid, p->pid);

		if (*seen)
			continue;
		*seen = 1;
		if (sys_kcmp(process_living(p), tid, KCMP_FILES, 0, 0) > 0)
			return error_say(
				e, ENOTSUP,
				"pid %d: thread %d has a descriptor table of its own, which is not supported",
				p->pid, tid);
		if (sys_kcmp(process_living(p), tid, KCMP_FS, 0, 0) > 0)
			return error_say(e, ENOTSUP,
					 "pid %d: thread %d has a working directory of its own, which is not "
					 "supported",
					 p->pid, tid);
	}
	return 0;
}

int files_table_of(struct capture *c, struct process *p, struct fd_table **ret, struct error *e)
{
	struct files_capture *f = files_capture_of(c);
	uint32_t *slot = index_map_at(&f->by_pid, p->pid, 0);

	if (*slot) {
		*ret = &f->tables[*slot - 1];
		return 0;
	}
	FILES_GROW(f->tables, f->n_tables, f->cap_tables);
	f->tables[f->n_tables++] = (struct fd_table){.pid = p->pid, .living = process_living(p)};
	*slot = f->n_tables;
	struct fd_table *t = &f->tables[f->n_tables - 1];

	*ret = t;
	int r = check_threads(f, p, e);

	if (r < 0)
		return r;
	cleanup_close int own = p->pidfd >= 0 ? -1 : sys_pidfd_open(p->pid, 0);

	r = scan_numbers(f, t, p->pidfd >= 0 ? process_living_fd(p) : own, e);
	if (r == -ESRCH && !error_is(e) && !f->frozen)
		return 0; /* exited: the tree will be looked at again */
	if (r < 0)
		return r;
	find_shared(f, t);
	return 0;
}

int files_identify_copy(struct capture *c, int copy, uint32_t *ret, struct error *e)
{
	struct files_capture *f = files_capture_of(c);
	int is_new = identify(f, getpid(), getpid(), copy, copy, ret, e);

	if (is_new <= 0) {
		close(copy);
		return is_new;
	}
	f->ofds[*ret].extra = copy;
	return read_link(f, &f->ofds[*ret], e) < 0 ? -e->code : 1;
}
