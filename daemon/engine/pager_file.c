/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a pager needs to be taken over: written whole under another name and renamed, then changed in place by
 * stores that are whole words: bits of pages that are placed, and events.  Who takes over takes what was
 * missing, less what was placed, and makes the events again in their order.
 */
#include "engine/pager_file.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "base/util.h"
#include "freeze/cgroup.h"
#include "procfs/procfs.h"

/* --- layout ---------------------------------------------------------------------------------------- */

static uint64_t words(uint64_t bytes)
{
	return bytes / sizeof(uint64_t);
}

static uint64_t source_words(uint64_t n_base, uint64_t n)
{
	return words(sizeof(struct pager_source)) + n_base * words(sizeof(struct page_range)) +
	       MISSING_WORDS(n);
}

static uint64_t space_words(const struct pager_space *x, uint64_t n)
{
	return words(sizeof(*x)) + x->n_views * words(sizeof(struct missing_view)) +
	       x->n_ranges * words(sizeof(struct missing_range)) +
	       (x->n_registered + x->n_huge) * words(sizeof(struct page_range)) + MISSING_WORDS(n);
}

static struct pager_space space_of(const struct missing_space *x)
{
	return (struct pager_space){.fd = x->ended ? -1 : x->fd,
				    .object = x->object,
				    .source = x->source,
				    .n_views = x->n_views,
				    .n_ranges = x->n,
				    .n_registered = x->registered.n,
				    .n_huge = x->huge.n};
}

static uint64_t total_words(const struct missing *m, size_t n_objects)
{
	uint64_t n = n_objects * words(sizeof(struct pager_shared));

	for (size_t i = 0; i < m->n_sources; i++)
		n += source_words(m->sources[i].base.n, m->sources[i].n);
	for (size_t i = 0; i < m->n_spaces; i++) {
		const struct pager_space x = space_of(&m->spaces[i]);

		n += space_words(&x, m->sources[x.source].n);
	}
	return n;
}

static uint64_t *sources_of(struct pager_file *f)
{
	return f->rest + f->h.n_objects * words(sizeof(struct pager_shared));
}

uint64_t *pager_file_placed(struct pager_file *f, size_t source)
{
	uint64_t *at = sources_of(f);

	for (size_t i = 0;; i++) {
		const struct pager_source *s = (const struct pager_source *)at;

		if (i == source)
			return at + source_words(s->n_base, 0);
		at += source_words(s->n_base, s->n);
	}
}

void pager_mark_placed(struct pager *p, size_t source, uint64_t mark)
{
	pager_file_placed(p->file, source)[mark / 64] |= 1ull << (mark % 64);
}

struct pager_event *pager_file_log(struct pager_file *f)
{
	return (struct pager_event *)((char *)f + f->h.log_at);
}

static struct pager_space *file_space(struct pager_file *f, size_t space)
{
	uint64_t *at = sources_of(f);
	cleanup_free uint64_t *n = xcalloc(f->h.n_sources + 1, sizeof(*n));

	for (size_t i = 0; i < f->h.n_sources; i++) {
		const struct pager_source *s = (const struct pager_source *)at;

		n[i] = s->n;
		at += source_words(s->n_base, s->n);
	}
	for (size_t i = 0; i < space; i++) {
		const struct pager_space *x = (const struct pager_space *)at;

		at += space_words(x, n[x->source]);
	}
	return (struct pager_space *)at;
}

void pager_file_ended(struct pager_file *f, size_t space)
{
	struct pager_event *log = pager_file_log(f);
	size_t number = f->h.n_spaces;

	if (space < number) {
		file_space(f, space)->fd = -1;
		return;
	}
	/* Forks make spaces in the order in which they are in the log. */
	for (uint32_t i = 0; i < f->h.n_log; i++)
		if (log[i].msg.event == UFFD_EVENT_FORK && number++ == space)
			log[i].msg.arg.fork.ufd = UINT32_MAX;
}

/* --- writing --------------------------------------------------------------------------------------- */

/* Nothing may have no address. */
static void copy(void *to, const void *from, size_t n)
{
	if (n)
		memcpy(to, from, n);
}

static uint64_t *put_ranges(uint64_t *at, const struct page_set *s)
{
	copy(at, s->r, s->n * sizeof(struct page_range));
	return at + s->n * words(sizeof(struct page_range));
}

static void fill(struct pager_file *f, const struct pager *p)
{
	const struct missing *m = &p->missing;
	struct pager_shared *shared = (struct pager_shared *)f->rest;
	uint64_t *at = sources_of(f);

	for (size_t i = 0; i < p->n_objects; i++)
		shared[i] = (struct pager_shared){p->objects[i].fd, p->objects[i].size};
	for (size_t i = 0; i < m->n_sources; i++) {
		const struct missing_source *s = &m->sources[i];

		*(struct pager_source *)at = (struct pager_source){s->pid, s->base.n, s->n};
		at += words(sizeof(struct pager_source));
		at = put_ranges(at, &s->base) + MISSING_WORDS(s->n);
	}
	for (size_t i = 0; i < m->n_spaces; i++) {
		const struct missing_space *x = &m->spaces[i];
		uint64_t n = m->sources[x->source].n;

		*(struct pager_space *)at = space_of(x);
		at += words(sizeof(struct pager_space));
		copy(at, x->views, x->n_views * sizeof(struct missing_view));
		at += x->n_views * words(sizeof(struct missing_view));
		copy(at, x->r, x->n * sizeof(struct missing_range));
		at += x->n * words(sizeof(struct missing_range));
		at = put_ranges(put_ranges(at, &x->registered), &x->huge);
		copy(at, x->bits, MISSING_WORDS(n) * sizeof(uint64_t));
		at += MISSING_WORDS(n);
	}
}

static uint64_t start_of(pid_t pid)
{
	struct proc_stat st;
	struct error ignore = ERROR_INIT;

	return proc_stat_read(pid, 0, &st, &ignore) < 0 || st.state == 'Z' || st.state == 'X' ? 0
											      : st.start_time;
}

static int map_new(const char *tmp, size_t size, struct pager_file **ret, struct error *e)
{
	cleanup_close int fd = open(tmp, O_RDWR | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);

	if (fd < 0)
		return error_set(e, errno, "make %s", tmp);
	/* Room for all of it, now. */
	int r = posix_fallocate(fd, 0, (off_t)size);

	if (r)
		return error_set(e, r, "make %s of %zu bytes", tmp, size);
	struct pager_file *f = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, 0);

	if (f == MAP_FAILED)
		return error_set(e, errno, "map %s", tmp);
	*ret = f;
	return 0;
}

static void end_holder(pid_t pid, uint64_t start, bool child)
{
	int fd = pid > 0 ? sys_pidfd_open(pid, 0) : -1;

	if (fd < 0)
		return;
	if (start && start_of(pid) == start)
		(void)sys_pidfd_send_signal(fd, SIGKILL);
	close(fd);
	if (child)
		holder_reap(pid);
}

void pager_end_holder(struct pager *p)
{
	if (p->file)
		end_holder(p->holder, p->file->h.holder_start, p->holder_is_child);
	p->holder = 0;
}

static bool lives(const struct pager *p)
{
	if (p->holder_is_child)
		(void)waitpid(p->holder, NULL, __WALL | WNOHANG);
	return p->holder > 0 && p->holder_is_child && start_of(p->holder);
}

int pager_write(struct pager *p, const char *path, struct error *e)
{
	cleanup_free char *tmp = xasprintf("%s.tmp", path);
	uint64_t log_at =
		sizeof(struct pager_file) + total_words(&p->missing, p->n_objects) * sizeof(uint64_t);
	size_t size = log_at + PAGER_LOG * sizeof(struct pager_event);
	struct pager_file *f = NULL;
	pid_t old = p->holder, now = old;
	uint64_t old_start = p->file ? p->file->h.holder_start : 0;
	bool old_is_child = p->holder_is_child, change = !lives(p);
	int r = map_new(tmp, size, &f, e);

	if (r >= 0 && change) {
		now = holder_start(path, e);
		r = MIN(now, 0);
	}
	if (r >= 0) {
		f->h = (struct pager_header){.magic = PAGER_MAGIC,
					     .version = PAGER_VERSION,
					     .holder = now,
					     .holder_start = start_of(now),
					     .total = p->total,
					     .n_objects = p->n_objects,
					     .n_sources = p->missing.n_sources,
					     .n_spaces = p->missing.n_spaces,
					     .size = size,
					     .log_at = log_at};
		fill(f, p);
		f->h.n_log = (uint32_t)p->n_pending;
		copy(pager_file_log(f), p->pending, p->n_pending * sizeof(*p->pending));
		if (rename(tmp, path) < 0)
			r = error_set(e, errno, "rename %s", tmp);
	}
	if (r < 0) {
		if (change && now > 0)
			end_holder(now, start_of(now), true);
		if (f)
			munmap(f, size);
		unlink(tmp);
		return r;
	}
	if (p->file)
		munmap(p->file, p->size);
	p->file = f;
	p->size = size;
	p->holder = now;
	p->holder_is_child = true;
	free(p->path);
	p->path = xstrdup(path);
	if (change)
		end_holder(old, old_start, old_is_child);
	return 0;
}

int pager_check_holder(struct pager *p, struct error *e)
{
	cleanup_free char *path = lives(p) ? NULL : xstrdup(p->path);
	int r = path ? pager_write(p, path, e) : 0;

	for (size_t i = 0; i < p->missing.n_sources && r >= 0; i++)
		if (!p->missing.spaces[i].ended && start_of(p->missing.sources[i].pid)) {
			(void)cgroup_follow(p->holder, p->missing.sources[i].pid);
			break;
		}
	return r;
}

/* --- reading --------------------------------------------------------------------------------------- */

static int map_old(const char *path, struct pager_file **ret, size_t *ret_size, struct error *e)
{
	cleanup_close int fd = open(path, O_RDWR | O_NOFOLLOW | O_CLOEXEC);
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0)
		return error_set(e, errno, "open %s", path);
	if ((size_t)st.st_size < sizeof(struct pager_file))
		return error_say(e, EBADMSG, "%s is cut short", path);
	struct pager_file *f = mmap(NULL, (size_t)st.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	if (f == MAP_FAILED)
		return error_set(e, errno, "map %s", path);
	if (f->h.magic != PAGER_MAGIC || f->h.version != PAGER_VERSION || f->h.size != (size_t)st.st_size) {
		munmap(f, (size_t)st.st_size);
		return error_say(e, EBADMSG, "%s was not written by this version", path);
	}
	*ret = f;
	*ret_size = (size_t)st.st_size;
	return 0;
}

bool pager_names_holder(const char *path, pid_t pid)
{
	cleanup_close int fd = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	struct pager_header h;

	return fd >= 0 && pread_full(fd, &h, sizeof(h), 0) == 0 && h.magic == PAGER_MAGIC &&
	       h.holder == pid && !h.finished;
}

bool pager_is_finished(const char *path)
{
	cleanup_close int fd = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	struct pager_header h;

	return fd >= 0 && pread_full(fd, &h, sizeof(h), 0) == 0 && h.magic == PAGER_MAGIC && h.finished;
}

bool pager_is_left(const char *path)
{
	cleanup_close int fd = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	struct pager_header h;

	return fd >= 0 && pread_full(fd, &h, sizeof(h), 0) == 0 && h.magic == PAGER_MAGIC && !h.finished;
}

size_t pager_object_fds(const char *path, int **ret)
{
	struct pager_file *f;
	struct error ignore = ERROR_INIT;
	size_t size, n = 0;

	*ret = NULL;
	if (map_old(path, &f, &size, &ignore) < 0)
		return 0;
	const struct pager_shared *shared = (const struct pager_shared *)f->rest;

	*ret = xcalloc(f->h.n_objects + 1, sizeof(**ret));
	for (; n < f->h.n_objects; n++)
		(*ret)[n] = (int)shared[n].fd;
	munmap(f, size);
	return n;
}

void pager_discard(const char *path)
{
	struct pager_file *f;
	struct error ignore = ERROR_INIT;
	size_t size;

	if (map_old(path, &f, &size, &ignore) < 0)
		return;
	f->h.finished = 1;
	unlink(path);
	end_holder(f->h.holder, f->h.holder_start, false);
	munmap(f, size);
}

static int take_fd(int holder, int64_t number, struct error *e)
{
	int fd = number < 0 ? -1 : sys_pidfd_getfd(holder, (int)number);

	if (number >= 0 && fd < 0)
		return error_set(e, -fd, "take over userfaultfd %lld", (long long)number);
	return fd;
}

/* What was missing when it was written, less what was placed since. */
static int read_spaces(struct pager *p, struct pager_file *f, int holder, struct error *e)
{
	const struct pager_shared *shared = (const struct pager_shared *)f->rest;
	uint64_t *at = sources_of(f);

	for (size_t i = 0; i < f->h.n_objects; i++) {
		int fd = take_fd(holder, shared[i].fd, e);

		if (fd < 0)
			return fd;
		pager_add_object(p, fd, shared[i].size);
	}
	for (size_t i = 0; i < f->h.n_sources; i++) {
		const struct pager_source *s = (const struct pager_source *)at;
		const struct page_set base = {(struct page_range *)(at + words(sizeof(*s))), s->n_base,
					      s->n_base};

		missing_add_source(&p->missing, (pid_t)s->pid, &base);
		at += source_words(s->n_base, s->n);
	}
	for (size_t i = 0; i < f->h.n_spaces; i++) {
		const struct pager_space *x = (const struct pager_space *)at;
		const struct missing_view *views = (const struct missing_view *)(at + words(sizeof(*x)));
		const struct missing_range *r = (const struct missing_range *)(views + x->n_views);
		uint64_t n = MISSING_WORDS(p->missing.sources[x->source].n);
		struct page_range *rest = (struct page_range *)(r + x->n_ranges);
		const struct page_set registered = {rest, x->n_registered, x->n_registered};
		const struct page_set huge = {rest + x->n_registered, x->n_huge, x->n_huge};
		uint64_t *bits = at + space_words(x, 0);
		const uint64_t *placed = pager_file_placed(f, x->source);
		cleanup_free uint64_t *left = xcalloc(n + 1, sizeof(*left));
		int fd = take_fd(holder, x->fd, e);

		if (fd < 0 && x->fd >= 0)
			return fd;
		for (uint64_t k = 0; k < n; k++)
			left[k] = bits[k] & ~placed[k];
		missing_add_space_as(&p->missing, x->source, fd, r, x->n_ranges, left, &registered);
		p->missing.spaces[i].object = x->object;
		missing_set_huge(&p->missing, i, &huge);
		for (size_t k = 0; k < x->n_views; k++)
			missing_add_view(&p->missing, i, &views[k]);
		if (fd < 0 && x->object == MISSING_PROCESS)
			missing_end(&p->missing, i);
		at += space_words(x, p->missing.sources[x->source].n);
	}
	return 0;
}

/* What the one before had put in the books; what it had only read waits, as it did there. */
static int replay(struct pager *p, struct pager_file *f, int holder, struct error *e)
{
	const struct pager_event *log = pager_file_log(f);

	/* The last one may have been read, but not counted. */
	for (uint32_t i = 0; i <= f->h.n_log && i < PAGER_LOG; i++) {
		struct pager_event ev = log[i];

		if (ev.applied && i < f->h.n_log)
			pager_take_for_settled(p, ev.space);
		if (ev.applied || !ev.msg.event || ev.msg.event == UFFD_EVENT_PAGEFAULT)
			continue;
		if (ev.msg.event == UFFD_EVENT_FORK && ev.msg.arg.fork.ufd != UINT32_MAX) {
			int fd = take_fd(holder, ev.msg.arg.fork.ufd, e);

			if (fd < 0)
				return fd;
			ev.msg.arg.fork.ufd = (uint32_t)fd;
		}
		pager_add_pending(p, &ev);
	}
	/* Children that had ended by then. */
	for (size_t i = 0; i < p->missing.n_spaces; i++)
		if (p->missing.spaces[i].fd < 0 && !p->missing.spaces[i].ended &&
		    p->missing.spaces[i].object == MISSING_PROCESS)
			missing_end(&p->missing, i);
	return 0;
}

int pager_open(struct pager **ret, const char *path, struct error *e)
{
	struct pager_file *f;
	size_t size;
	int r = map_old(path, &f, &size, e);

	if (r < 0)
		return r;
	struct pager *p = pager_new();
	int holder = sys_pidfd_open(f->h.holder, 0);

	p->file = f;
	p->size = size;
	p->total = f->h.total;
	p->holder = f->h.holder;
	/* That number belongs to another process by now? */
	if (holder >= 0 && start_of(f->h.holder) != f->h.holder_start)
		close(TAKE_FD(holder));
	if (holder < 0)
		r = error_say(e, EOWNERDEAD,
			      "the process that held the userfaultfds (pid %d) was killed: what was missing "
			      "reads as "
			      "zeros now",
			      f->h.holder);
	if (r >= 0)
		r = read_spaces(p, f, holder, e);
	if (r >= 0)
		r = replay(p, f, holder, e);
	/* What the one before had read is not told again: who waits looks again. */
	for (size_t i = 0; i < p->missing.n_spaces && r >= 0; i++) {
		const struct missing_space *x = &p->missing.spaces[i];

		if (!x->ended && x->fd >= 0)
			pager_wake_all(x->fd);
	}
	if (holder >= 0)
		close(holder);
	/* A holder of our own, and a file that names our descriptors. */
	if (r >= 0)
		r = pager_write(p, path, e);
	if (r >= 0)
		r = pager_read(p, e);
	if (r < 0) {
		pager_free(p);
		return r;
	}
	*ret = p;
	return 0;
}
